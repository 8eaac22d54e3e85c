"""How a picture file becomes pixels: the one reading of client, serving, data sets and training folders.

Upright as EXIF says, RGB, white where it is transparent, 16 bits cut to 8; then the middle, at a network's
size.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rootserve.pictures import PictureError

MOST_PIXELS = 178_956_970
"""Of a picture where no setting says how many: what Pillow refuses by itself, if it is left to."""

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

_SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_WIDER = frozenset({"I", "F"})


@contextmanager
def opened(
    content: bytes, *, max_pixels: int = MOST_PIXELS, formats: tuple[str, ...] | None = None
) -> Iterator[Image.Image]:
    """A picture file whose header is read and its size checked; nothing is decoded yet.

    Raises:
        PictureError: if it is of another format, has more than ``max_pixels``, or turns out to be damaged.
    """
    try:
        # Text and colour profiles, which Pillow unpacks with the header, are bounded by Pillow.
        with Image.open(io.BytesIO(content), formats=formats) as file:
            _check_size(file, max_pixels)
            yield file
    except (PictureError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"has more than {MOST_PIXELS / 1e6:.0f} million pixels") from None
    except UnidentifiedImageError:
        if formats is None:
            raise PictureError("is not a picture; expected a format such as PNG or JPEG") from None
        kinds = " or ".join(formats)
        raise PictureError(f"is damaged: its header is none of a {kinds} file") from None
    except Exception as error:  # noqa: BLE001 - damage makes Pillow raise whatever it comes upon
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise PictureError(f"is damaged: {text}") from None


def to_rgb(file: Image.Image) -> Image.Image:
    """An opened file, decoded: upright, RGB, on white.

    Raises:
        PictureError: if it has over 16 bits per value.
    """
    return _flat(_upright(file))


def pixels_of(picture: Image.Image) -> NDArray[np.uint8]:
    """An RGB picture as uint8 [3, H, W]."""
    return np.ascontiguousarray(np.asarray(picture, np.uint8).transpose(2, 0, 1))


def centre(picture: Image.Image, size: int, short_side: int) -> NDArray[np.uint8]:
    """Resized to ``short_side`` and cropped to [3, size, size], in one step.

    Only the pixels that are kept are computed, with a triangle filter that is widened when it shrinks.
    """
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
    return pixels_of(picture.resize((size, size), Image.Resampling.BILINEAR, box))


def _check_size(file: Image.Image, max_pixels: int) -> None:
    width, height = file.size
    if width * height > max_pixels:
        raise PictureError(
            f"has {width} x {height} pixels, {width * height / 1e6:.1f} million; "
            f"expected at most {max_pixels / 1e6:g} million"
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


def _flat(picture: Image.Image) -> Image.Image:
    """Any of Pillow's modes as RGB, on white where it is transparent."""
    if picture.mode in _WIDER:
        raise PictureError("has 32 bits per value; expected 8 or 16")
    clear = picture.info.get("transparency")
    if picture.mode in _SIXTEEN_BITS:
        # Pillow would cut values above 255 off, and know nothing of transparency.
        values = np.asarray(picture)
        grey = (values >> 8).astype(np.uint8)
        if clear is not None:
            grey[values == clear] = 255
        return Image.fromarray(grey).convert("RGB")
    if isinstance(clear, tuple) and max(clear) > 255:
        # Of 16 bits, while Pillow has cut the pixels to 8.
        picture.info["transparency"] = tuple(value >> 8 for value in clear)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
