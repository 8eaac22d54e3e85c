"""The little of protobuf's wire format that is written by hand."""

from __future__ import annotations

FIXED64, LENGTH_DELIMITED = 1, 2
"""How a field is written, as its key says; 0, a varint."""


def key(field: int, written: int = 0) -> bytes:
    """What stands before the value of a field."""
    return varint(field << 3 | written)


def varint(value: int) -> bytes:
    """A whole number; one below zero as an int64."""
    if 0 <= value < 0x80:
        return value.to_bytes(1, "little")
    content = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)


def delimited(field: int, content: bytes) -> bytes:
    """A field of bytes, a text or a message."""
    return key(field, LENGTH_DELIMITED) + varint(len(content)) + content
