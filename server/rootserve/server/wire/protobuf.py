"""The little of protobuf's wire format that is written by hand."""

from __future__ import annotations

FIXED64, LENGTH_DELIMITED = 1, 2
"""How a field is written, as its key says; 0, a varint."""


def key(field: int, written: int = 0) -> bytes:
    """What stands before the value of a field."""
    return varint(field << 3 | written)


def varint(value: int) -> bytes:
    """A whole number; one below zero as an int64."""
    # Seven bits of it to each byte; four bytes hold a quarter of a second in nanoseconds.
    if 0 <= value < 1 << 28:
        if value < 1 << 7:
            return value.to_bytes(1, "little")
        if value < 1 << 14:
            return (value & 0x7F | value << 1 & 0x7F00 | 0x80).to_bytes(2, "little")
        low = value & 0x7F | value << 1 & 0x7F00 | value << 2 & 0x7F0000
        if value < 1 << 21:
            return (low | 0x8080).to_bytes(3, "little")
        return (low | value << 3 & 0x7F000000 | 0x808080).to_bytes(4, "little")
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
