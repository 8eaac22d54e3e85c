"""Picture files of any size and format, as the networks take them."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rootserve.client.errors import InputError
from rootserve.pictures import PictureError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_MOST_BYTES = 8 * 2**20
_MOST_PIXELS = 25_000_000
"""What a server takes unless it is told otherwise; larger pictures are made smaller here."""
_KEPT_SIDE = 4
"""A picture that is made smaller keeps so many times the pixels that the model takes."""


def read_image(path: Path, size: int, shorter: int | None = None) -> NDArray[np.uint8]:
    """Read one picture as uint8 [3, size, size], RGB, as the server reads those it is sent.

    Upright as EXIF says, white where it is transparent, 16 bits cut to 8; resized and cropped to its
    centre. A picture that has the size already is left as it is.

    Args:
        path: The file, in any format Pillow reads.
        size: Height and width in pixels.
        shorter: What its shorter side is resized to before the middle is taken; None means `size`.

    Raises:
        InputError: The file is missing or no picture.
    """
    shorter = shorter or size
    # Imported where a picture is read, so that nothing else pays for Pillow.
    from rootserve.pictures.decode import centre, to_rgb  # noqa: PLC0415

    with _opened(path, _read(path)) as file:
        file.draft(None, (2 * shorter, 2 * shorter))  # as the server does
        return centre(to_rgb(file), size, shorter)


def encode_pictures(paths: Sequence[Path], size: int) -> list[bytes]:
    """Read pictures as JPEG or PNG files, for `rootserve.client.inference.AsyncClient.infer_encoded`.

    Files of these formats are taken as they are, but for very large ones: those, and other formats, are
    encoded anew, made smaller where they are far larger than what the model takes.

    Args:
        paths: The files, in any format Pillow reads.
        size: Height and width in pixels that the model takes.

    Raises:
        InputError: One of them is missing or no picture; the message names it.
    """
    return [_encode(path, size) for path in paths]


def _encode(path: Path, size: int) -> bytes:
    content = _read(path)
    if content.startswith(_SIGNATURES) and len(content) <= _MOST_BYTES:
        with _opened(path, content) as file:
            width, height = file.size
        if width * height <= _MOST_PIXELS:
            return content
    from PIL import Image  # noqa: PLC0415 - see read_image

    from rootserve.pictures.decode import to_rgb  # noqa: PLC0415

    kept = _KEPT_SIDE * size
    with _opened(path, content) as file:
        file.draft(None, (kept, kept))
        picture = to_rgb(file)
    if min(picture.size) > kept:
        scale = kept / min(picture.size)
        width, height = (max(1, round(scale * side)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected a picture such as PNG or JPEG")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a picture such as PNG or JPEG") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


@contextmanager
def _opened(path: Path, content: bytes) -> "Iterator[Picture]":
    """Tell of what is no picture as an expected failure that names the file."""
    from rootserve.pictures.decode import opened  # noqa: PLC0415 - see read_image

    try:
        with opened(content) as file:
            yield file
    except PictureError as error:
        raise InputError(f"{path}: {error}") from None
