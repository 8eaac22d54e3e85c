"""A data set of picture files: a folder for each split, in it one for each class (``train/cat/7.jpg``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rootmodels.cifar10 import LabelledImages
from rootserve.pictures import DataError, PictureError
from rootserve.pictures.decode import centre, opened, to_rgb

SPLITS = ("train", "val")
_PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_LARGEST_SHARE = 0.5
"""Of the memory that is free: so much may the images of a split take."""


def is_image_folder(path: Path) -> bool:
    """Whether ``path`` is a folder with the splits."""
    return all((path / split).is_dir() for split in SPLITS)


def class_folders(path: Path) -> tuple[str, ...]:
    """The names of the classes of the training set, sorted: the order of the labels.

    Raises:
        DataError: if there are fewer than two.
    """
    folder = path / SPLITS[0]
    names = tuple(sorted(each.name for each in folder.iterdir() if each.is_dir()))
    if len(names) < 2:
        raise DataError(f"{folder} has {len(names)} folders, expected one for each class")
    return names


def read_image_folder(path: Path, split: str, size: int, most: int | None = None) -> LabelledImages:
    """All pictures of a split, each one's largest centred square scaled to ``size`` x ``size`` pixels.

    They are held in memory. If there are more than ``most``, as many are taken, evenly from all classes.

    Raises:
        DataError: if a class is not one of the training set's, a picture cannot be decoded, there are
            none, or they take more memory than there is.
    """
    classes = class_folders(path)
    strange = sorted({p.name for p in (path / split).iterdir() if p.is_dir()} - set(classes))
    if strange:
        raise DataError(f"{path / split} has the class {strange[0]!r}, which {SPLITS[0]} has not")
    found = list(_pictures(path / split, classes))
    if not found:
        raise DataError(f"{path / split} holds no pictures such as {split}/CLASS/name.jpg")
    if most is not None and most < len(found):
        found = [found[number * len(found) // most] for number in range(most)]
    needed, free = len(found) * 3 * size * size, _free_bytes()
    if needed > _LARGEST_SHARE * free:
        raise DataError(
            f"{path / split}: {len(found)} pictures of {size}x{size} take {needed / 2**30:.1f} GiB, "
            f"expected at most half of the {free / 2**30:.1f} GiB that are free"
        )
    images = np.empty((len(found), 3, size, size), np.uint8)

    def read(row: int) -> None:
        images[row] = _read(found[row][0], size)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(read, range(len(found))))
    return LabelledImages(images, np.array([label for _, label in found], np.int64))


def _pictures(folder: Path, classes: tuple[str, ...]) -> Iterator[tuple[Path, int]]:
    for label, name in enumerate(classes):
        for file in sorted((folder / name).rglob("*")):
            if file.suffix.lower() in _PICTURES:
                yield file, label


def _read(file: Path, size: int) -> NDArray[np.uint8]:
    try:
        with opened(file.read_bytes()) as picture:
            picture.draft(None, (2 * size, 2 * size))  # as the server does
            return centre(to_rgb(picture), size, size)
    except (OSError, PictureError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it {error}"
        raise DataError(f"{file} cannot be decoded: {reason}") from error


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
