"""From JPEG and PNG files to what a network takes, as torchvision's evaluation of ImageNet does it.

A picture's header is read and its size checked before anything is decoded, by the same library that then
decodes it. Whatever is wrong with a picture is that picture's own: :class:`PictureError`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rootmodels.families import FamilyFacts

# Pillow's own limit, which only warns at first: here every picture is checked against the setting.
Image.MAX_IMAGE_PIXELS = None

_MOST_JPEG_SCANS = 200
"""A progressive JPEG has some ten. Each one is a pass over the whole picture, and takes few bytes."""

_JPEG_MARGIN = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that leaves so many times the pixels needed."""

_START_OF_SCAN = b"\xff\xda"
_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to what turns the picture upright."""

_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L")


class PictureError(ValueError):
    """A picture cannot be used; one line that says what is wrong with it."""


class Decoder:
    """Decodes the pictures of a batch, several at a time.

    Args:
        threads: How many at a time.
        max_pixels: Most pixels of a picture, as its file holds it.
    """

    def __init__(self, threads: int, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def decode(
        self, contents: Iterable[bytes | memoryview], size: int, short_side: int
    ) -> Iterator[NDArray[np.uint8] | PictureError]:
        """Each picture as by :func:`decode_picture`, or what is wrong with it, in their order."""

        def one(content: bytes | memoryview) -> NDArray[np.uint8] | PictureError:
            try:
                return decode_picture(bytes(content), size, short_side, self._max_pixels)
            except PictureError as error:
                return error

        return map(one, contents) if self._pool is None else self._pool.map(one, contents)


def short_side(facts: FamilyFacts, size: int) -> int:
    """Pixels of the shorter side before the centre is cropped, for networks that take ``size``."""
    return int(size / facts.crop)


def decode_picture(
    content: bytes, size: int, short_side: int, max_pixels: int
) -> NDArray[np.uint8]:
    """One JPEG or PNG file as uint8 [3, size, size], RGB.

    It is turned upright as EXIF says, converted to RGB (white shows through what is transparent, 16 bits
    are cut to 8, colour profiles are not applied), resized so that its shorter side has ``short_side``
    pixels, with a triangle filter that is widened when it shrinks, and cropped to its centre.

    Raises:
        PictureError: if it is damaged, of another format, or has more than ``max_pixels``.
    """
    try:
        # Text and colour profiles, which Pillow unpacks with the header, are bounded by Pillow.
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as file:
            _check_header(file, content, max_pixels)
            # A JPEG is decoded at a half, a fourth or an eighth of its size if that is enough.
            file.draft(None, (_JPEG_MARGIN * short_side, _JPEG_MARGIN * short_side))
            picture = _to_rgb(_upright(file))
        return _centre(picture, size, short_side)
    except (PictureError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise PictureError("is damaged: its header is none of a JPEG or PNG file") from None
    except Exception as error:  # noqa: BLE001 - damage makes Pillow raise whatever it comes upon
        text = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"is damaged: {text}") from None


def _check_header(file: Image.Image, content: bytes, max_pixels: int) -> None:
    width, height = file.size
    if width * height > max_pixels:
        raise PictureError(
            f"has {width} x {height} pixels, {width * height / 1e6:.1f} million; "
            f"expected at most {max_pixels / 1e6:g} million"
        )
    # In the data of a scan FF is followed by 00, so that this counts scans (and those of previews).
    if file.format != "PNG" and content.count(_START_OF_SCAN) > _MOST_JPEG_SCANS:
        raise PictureError(
            f"has {content.count(_START_OF_SCAN)} scans; expected at most {_MOST_JPEG_SCANS}"
        )


def _upright(file: Image.Image) -> Image.Image:
    """The decoded picture, turned as its EXIF orientation says; what cannot be read says nothing."""
    file.load()
    try:
        orientation = file.getexif().get(_ORIENTATION_TAG)
    except Exception:  # noqa: BLE001 - as for damage; the pixels are there
        return file
    transposition = _TRANSPOSITIONS.get(orientation or 1)
    return file if transposition is None else file.transpose(transposition)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Any of the modes that Pillow has for JPEG and PNG as RGB, on white where it is transparent."""
    if picture.mode in _SIXTEEN_BITS:
        # Pillow would cut values above 255 off.
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _centre(picture: Image.Image, size: int, short_side: int) -> NDArray[np.uint8]:
    """Resized to ``short_side`` and cropped, in one step: only the pixels that are kept are computed."""
    shorter = min(picture.size)
    # As torchvision rounds: the longer side down, half of what is cut off to the nearest even.
    new_size = [short_side * length // shorter for length in picture.size]
    offsets = [round((length - size) / 2) for length in new_size]
    scales = [old / new for old, new in zip(picture.size, new_size, strict=True)]
    left, top = (offset * scale for offset, scale in zip(offsets, scales, strict=True))
    right, bottom = (
        min(start + size * scale, length)  # rounding must not lead beyond the edge
        for start, scale, length in zip((left, top), scales, picture.size, strict=True)
    )
    box = (left, top, right, bottom)
    resized = picture.resize((size, size), Image.Resampling.BILINEAR, box)
    return np.asarray(resized, np.uint8).transpose(2, 0, 1)
