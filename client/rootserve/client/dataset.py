"""Labelled images from parquet files in the Hugging Face layout."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rootserve.client.errors import InputError
from rootserve.pictures import DataError

if TYPE_CHECKING:
    from rootserve.pictures.parquet import Row


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images uint8 [N, 3, H, W], RGB, and labels int64 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_dataset(path: Path, limit: int | None = None) -> Dataset:
    """Read the images and labels of a data set.

    Args:
        path: A parquet file, or a folder with `test-*.parquet` or `plain_text/test-*.parquet`.
        limit: Read only this many, from the beginning; None reads all.

    Raises:
        InputError: Nothing of the kind is there, or its content is of another form.
    """
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    with _told_as_input():
        for row in islice(_rows(path, labels=True), limit):
            images.append(row.pixels())
            labels.append(row.label)
    if not images:
        raise InputError(f"{path}: holds no images")
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        sizes = ", ".join(sorted(f"{width}x{height}" for _, height, width in shapes))
        raise InputError(f"{path}: images of different sizes ({sizes}); expected one size")
    return Dataset(np.stack(images), np.array(labels, np.int64))


def iterate_images(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The images of a data set, uint8 [3, H, W], one by one; no labels are needed.

    Args:
        path: As for `read_dataset`.

    Raises:
        InputError: Nothing of the kind is there, or its content is of another form.
    """
    with _told_as_input():
        for row in _rows(path, labels=False):
            yield row.pixels()


def count_images(path: Path) -> int:
    """How many images a data set has, without reading them or needing labels.

    Raises:
        InputError: Nothing of the kind is there, or its content is of another form.
    """
    from rootserve.pictures.parquet import find_files, row_count  # noqa: PLC0415 - see _rows

    with _told_as_input():
        return sum(row_count(file) for file in find_files(path, "test"))


def _rows(path: Path, *, labels: bool) -> "Iterator[Row]":
    # Imported where a data set is read, so that nothing else pays for pyarrow.
    from rootserve.pictures.parquet import find_files, iterate_rows  # noqa: PLC0415

    for file in find_files(path, "test", labels=labels):
        yield from iterate_rows(file, labels=labels)


@contextmanager
def _told_as_input() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise InputError(str(error)) from None
