"""Picture files in a BYTES tensor: each one behind its length, as the protocol lays them.

The length is 4 bytes, unsigned, little-endian. The wire checks with this, and a worker cuts with it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

_LENGTH = struct.Struct("<I")

LENGTH_BYTES = _LENGTH.size
JPEG_SIGNATURE = b"\xff\xd8\xff"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def join(elements: Iterable[bytes]) -> bytes:
    """The elements as they lie in a raw BYTES tensor."""
    return b"".join(part for one in elements for part in (_LENGTH.pack(len(one)), one))


def spans(content: bytes | memoryview, position: int, end: int) -> Iterator[tuple[int, int]]:
    """Where each element of ``content`` between ``position`` and ``end`` begins and ends.

    Raises:
        ValueError: if a length does not fit; its text tells what came.
    """
    while position < end:
        left = end - position - LENGTH_BYTES
        if left < 0:
            raise ValueError(f"{end - position} bytes are left for its length, expected 4")
        (length,) = _LENGTH.unpack_from(content, position)
        if length > left:
            raise ValueError(f"its length says {length} bytes, but {left} are left")
        position += LENGTH_BYTES + length
        yield position - length, position
