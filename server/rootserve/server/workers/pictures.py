"""From JPEG and PNG files to what a network takes, as torchvision's evaluation of ImageNet does it.

How a file becomes pixels is for :mod:`rootserve.pictures.decode` to say. A picture's header is read and its
size checked before anything is decoded, by the same library that then decodes it. Whatever is wrong with a
picture is that picture's own: :class:`PictureError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rootserve.pictures import PictureError
from rootserve.pictures.decode import centre, opened, to_rgb

# Pillow's own limit, which only warns at first: here every picture is checked against the setting.
Image.MAX_IMAGE_PIXELS = None

__all__ = ["Decoder", "PictureError", "decode_picture"]

_FORMATS = ("JPEG", "PNG")

_MOST_JPEG_SCANS = 200
"""A progressive JPEG has some ten. Each one is a pass over the whole picture, and takes few bytes."""

_JPEG_MARGIN = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that leaves so many times the pixels needed."""

_START_OF_SCAN = b"\xff\xda"


class Decoder:
    """Decodes the pictures of a batch, several at a time.

    Args:
        threads: How many at a time.
        max_pixels: Most pixels of a picture, as its file holds it.
    """

    def __init__(self, threads: int, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        # The first of a process takes a hundred times as long, which must not count as what pictures take.
        list(self.decode(_of_each_format(), 1, 1))

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


def _of_each_format() -> Iterator[bytes]:
    for name in _FORMATS:
        file = BytesIO()
        Image.new("RGB", (1, 1)).save(file, name)
        yield file.getvalue()


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
    with opened(content, max_pixels=max_pixels, formats=_FORMATS) as file:
        _check_scans(file, content)
        # A JPEG is decoded at a half, a fourth or an eighth of its size if that is enough.
        file.draft(None, (_JPEG_MARGIN * short_side, _JPEG_MARGIN * short_side))
        picture = to_rgb(file)
    return centre(picture, size, short_side)


def _check_scans(file: Image.Image, content: bytes) -> None:
    # In the data of a scan FF is followed by 00, so that this counts scans (and those of previews).
    if file.format != "PNG" and content.count(_START_OF_SCAN) > _MOST_JPEG_SCANS:
        raise PictureError(
            f"has {content.count(_START_OF_SCAN)} scans; expected at most {_MOST_JPEG_SCANS}"
        )
