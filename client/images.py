"""Picture files of any size and format, as the networks take them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.errors import InputError


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
    # Pillow is imported where a picture is read, so that nothing else pays for it.
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415

    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected a picture such as PNG or JPEG")
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            rgba = upright.convert("RGBA")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a picture such as PNG or JPEG") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a picture; expected a format such as PNG or JPEG") from None
    # Pillow's decoders report damage with any of these.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: cannot be read as a picture such as PNG or JPEG ({error})"
        ) from None
    white = Image.new("RGBA", rgba.size, "white")
    picture = Image.alpha_composite(white, rgba).convert("RGB")
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(picture, np.uint8).transpose(2, 0, 1))


def read_images(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Read pictures as one batch, uint8 [N, 3, size, size], RGB.

    Raises:
        InputError: One of them cannot be read; the message names it.
    """
    return np.stack([read_image(path, size) for path in paths])
