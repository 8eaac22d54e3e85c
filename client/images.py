"""Picture files of any size and format, as the networks take them."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from client.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_MOST_BYTES = 8 * 2**20
_MOST_PIXELS = 25_000_000
"""What a server takes unless it is told otherwise; larger pictures are made smaller here."""
_TOGETHER_BYTES = 48 * 2**20
"""Of all pictures of a request: a message has at most 64 MiB."""
_KEPT_SIDE = 4
"""A picture that is made smaller keeps so many times the pixels that the model takes."""


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """Read one picture as uint8 [3, size, size], RGB.

    The largest centred square is kept and resized with Lanczos' filter; a picture that has the
    size already is left as it is. EXIF orientation is applied, transparency shows white.

    Args:
        path: The file, in any format Pillow reads.
        size: Height and width in pixels.

    Raises:
        InputError: The file is missing or no picture.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 - see _upright

    picture = _upright(path)
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(picture, np.uint8).transpose(2, 0, 1))


def encode_pictures(paths: Sequence[Path], size: int) -> list[bytes]:
    """Read pictures as JPEG or PNG files, for `client.inference.Client.infer_encoded`.

    Files of these formats are taken as they are, but for very large ones: those, and other formats, are
    encoded anew, made smaller where they are far larger than what the model takes.

    Args:
        paths: The files, in any format Pillow reads.
        size: Height and width in pixels that the model takes.

    Raises:
        InputError: One of them is missing or no picture; the message names it.
    """
    most_bytes = min(_MOST_BYTES, _TOGETHER_BYTES // max(1, len(paths)))
    return [_encode(path, size, most_bytes) for path in paths]


def _encode(path: Path, size: int, most_bytes: int) -> bytes:
    content = _read(path)
    if content.startswith(_SIGNATURES) and len(content) <= most_bytes:
        width, height = _dimensions(path, content)
        if width * height <= _MOST_PIXELS:
            return content
    from PIL import Image  # noqa: PLC0415 - see _upright

    picture = _upright(path)
    kept = _KEPT_SIDE * size
    if min(picture.size) > kept:
        scale = kept / min(picture.size)
        width, height = (max(1, round(scale * side)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected a picture such as PNG or JPEG")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a picture such as PNG or JPEG") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _dimensions(path: Path, content: bytes) -> tuple[int, int]:
    from PIL import Image  # noqa: PLC0415 - see _upright

    with _told_of(path), Image.open(io.BytesIO(content)) as picture:
        return picture.size


def _upright(path: Path) -> "Picture":
    """The picture in RGB, turned as EXIF says, on white where it is transparent."""
    # Pillow is imported where a picture is read, so that nothing else pays for it.
    from PIL import Image, ImageOps  # noqa: PLC0415

    with _told_of(path), Image.open(io.BytesIO(_read(path))) as file:
        rgba = ImageOps.exif_transpose(file).convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Tell of a picture that cannot be read as an expected failure."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - see _upright

    try:
        yield
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a picture; expected a format such as PNG or JPEG") from None
    # Pillow's decoders report damage with any of these.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: cannot be read as a picture such as PNG or JPEG ({error})"
        ) from None
