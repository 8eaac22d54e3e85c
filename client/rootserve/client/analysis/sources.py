"""Where the images of an analysis come from: a data set's files, a folder of pictures, the server."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rootserve.client.dataset import count_images, iterate_images
from rootserve.client.errors import InputError
from rootserve.client.images import read_image

_PICTURES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class ServerImages:
    """Images the server has.

    Args:
        dataset: Name under which they are configured there.
        skip: Images to leave out from the beginning.
        take: Images to take after those; None takes all.
    """

    dataset: str
    skip: int = 0
    take: int | None = None


@dataclass(frozen=True, slots=True)
class LocalImages:
    """Images this client streams, read while they are sent; see `local_images`.

    Args:
        count: How many there are.
        read: Begins to read them, each uint8 [3, H, W], RGB.
    """

    count: int
    read: Callable[[], Iterator[NDArray[np.uint8]]]

    def chunks(self, rows: int) -> Iterator[NDArray[np.uint8]]:
        """The images in arrays [rows, 3, H, W], the last one perhaps shorter.

        Raises:
            InputError: An image cannot be read, or has another size than the one before it.
        """
        images = self.read()
        while chunk := list(islice(images, rows)):
            shapes = {image.shape for image in chunk}
            if len(shapes) > 1:
                sizes = ", ".join(sorted(f"{width}x{height}" for _, height, width in shapes))
                raise InputError(f"images of different sizes ({sizes}); expected one size")
            yield np.stack(chunk)


def local_images(
    path: Path,
    image_size: int,
    *,
    shorter: int | None = None,
    skip: int = 0,
    take: int | None = None,
) -> LocalImages:
    """Images of a data set in parquet files, or the pictures in a folder.

    Args:
        path: As for `rootserve.client.dataset.read_dataset`, or a folder with pictures of any size, which
            are read in the order of their names and made to fit as the server would.
        image_size: Height and width the model takes.
        shorter: As for `rootserve.client.images.read_image`.
        skip: Images to leave out from the beginning.
        take: Images to take after those; None takes all.

    Raises:
        InputError: There are no such files, or fewer images than `skip` and `take` ask for.
    """
    pictures = _pictures(path)
    there = len(pictures) if pictures else _count(path)
    wanted = max(1, there - skip) if take is None else take
    if skip + wanted > there:
        first = f" after the first {skip:,}" if skip else ""
        raise InputError(f"{path}: holds {there:,} images; expected {wanted:,}{first}")

    def read() -> Iterator[NDArray[np.uint8]]:
        images: Iterator[NDArray[np.uint8]]
        if pictures:
            images = (read_image(picture, image_size, shorter) for picture in pictures[skip:])
        else:
            images = islice(iterate_images(path), skip, None)
        return islice(images, wanted)

    return LocalImages(wanted, read)


def _pictures(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return ()
    return sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES)


def _count(path: Path) -> int:
    try:
        return count_images(path)
    except InputError as error:
        if path.is_dir():
            raise InputError(f"{error}, nor pictures such as .png") from None
        raise
