"""The encoded pictures of a batch: found in its slot, decoded, and those that are bad told apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from rootserve.server.workers import encoding
from rootserve.server.workers.messages import Segment
from rootserve.server.workers.pictures import Decoder, PictureError

_BEAT_NS = 1_000_000_000
_LONGEST_REFUSAL = 1000
_REFUSAL_CHARACTERS = 40_000
"""Of all refusals of a batch together: they must fit one datagram."""


@dataclass(slots=True)
class Decoded:
    """By position of the segment: ``images`` uint8 [rows, 3, H, W], and where in the slot it ``ends``.

    ``refused`` are positions and what is wrong with a picture there; their images are zeros.
    """

    images: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    refused: tuple[tuple[int, str], ...] = ()
    decode_ns: int = 0


@dataclass(frozen=True, slots=True)
class PictureSize:
    """What pictures become: ``image`` C, H, W, cropped when their shorter side is ``short_side``."""

    image: tuple[int, int, int]
    short_side: int


def decode_segments(
    slot: memoryview,
    segments: tuple[Segment, ...],
    skipped: Collection[int],
    size: PictureSize,
    decoder: Decoder,
    beat: Callable[[], None],
) -> Decoded:
    """Decode the BYTES segments of the batch in ``slot``, but for those at the positions ``skipped``.

    Calls ``beat`` about once a second while it is at work.
    """
    began_ns = beat_ns = time.monotonic_ns()
    decoded = Decoded()
    files: list[memoryview] = []
    places: list[tuple[int, int]] = []
    offset = 0
    for position, (rows, datatype, _) in enumerate(segments):
        if datatype != "BYTES":
            values = rows * size.image[0] * size.image[1] * size.image[2]
            offset += values * (1 if datatype == "UINT8" else 4)
            continue
        decoded.images[position] = np.zeros((rows, *size.image), np.uint8)
        for row, (start, end) in enumerate(islice(encoding.spans(slot, offset, len(slot)), rows)):
            if position not in skipped:
                files.append(slot[start:end])
                places.append((position, row))
            offset = end
        decoded.ends[position] = offset
    refused: dict[int, str] = {}
    pictures = decoder.decode(files, size.image[1], size.short_side)
    for (position, row), picture in zip(places, pictures, strict=True):
        if isinstance(picture, PictureError):
            refused.setdefault(position, f"row {row}: the picture {picture}")
        else:
            decoded.images[position][row] = picture
        if time.monotonic_ns() - beat_ns > _BEAT_NS:
            beat()
            beat_ns = time.monotonic_ns()
    longest = min(_LONGEST_REFUSAL, _REFUSAL_CHARACTERS // max(1, len(refused)))
    decoded.refused = tuple((position, text[:longest]) for position, text in refused.items())
    decoded.decode_ns = time.monotonic_ns() - began_ns
    return decoded
