"""What networks are trained and measured on: CIFAR-10, or a folder of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.cifar10_facts import CLASSES as CIFAR10_CLASSES
from rootmodels.family import unnamed
from rootmodels.image_folder import class_folders, is_image_folder, read_image_folder
from rootmodels.parquet_images import ParquetImages
from rootmodels.weights_info import WeightsError
from rootserve.pictures.parquet import find_files


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A training and a test set, and the names of their classes in the order of the labels."""

    train: LabelledImages
    test: LabelledImages
    classes: tuple[str, ...] = CIFAR10_CLASSES
    tested_on: str = "CIFAR-10, test"
    """What the test set is called."""


def read_training_data(path: Path, image_size: int) -> TrainingData:
    """The data set at ``path``: CIFAR-10 as it is, or a folder of pictures scaled to ``image_size``.

    Raises:
        DataError: if it is neither, or cannot be read.
    """
    test = read_test_data(path, image_size)
    if is_image_folder(path):
        name = f"{path.resolve().name}, val"
        train = read_image_folder(path, "train", image_size)
        return TrainingData(train, test, class_folders(path), name if name.isprintable() else "val")
    return TrainingData(read_cifar10(path, "train"), test)


def read_test_data(path: Path, image_size: int) -> LabelledImages:
    """Its test set alone; as :func:`read_training_data`."""
    if is_image_folder(path):
        return read_image_folder(path, "val", image_size)
    return read_cifar10(path, "test")


def label_names(path: Path) -> tuple[str, ...]:
    """What the labels of :func:`read_test_data` stand for; raises as that."""
    return class_folders(path) if is_image_folder(path) else CIFAR10_CLASSES


def read_some(path: Path, image_size: int, count: int) -> NDArray[np.uint8]:
    """Some ``count`` images of its training set, or all if there are fewer; as :func:`read_training_data`."""
    if is_image_folder(path):
        return read_image_folder(path, "train", image_size, count).images
    images = ParquetImages(find_files(path, "train")[0])
    return images.read(0, min(count, images.images))


def check_classes(
    path: Path, names: Sequence[str], data: Path | str, expected: Sequence[str]
) -> None:
    """Refuse the file at ``path`` if its logits stand for something else than the labels of ``data``.

    What nobody named is taken to be as ``expected``.

    Raises:
        WeightsError: naming the first class that differs.
    """
    if len(names) != len(expected):
        raise WeightsError(f"{path} has {len(names)} classes, {data} has {len(expected)}")
    if tuple(names) == unnamed(len(names)):
        return
    for number, (name, label) in enumerate(zip(names, expected, strict=True)):
        if name != label:
            raise WeightsError(
                f"{path}: class {number} is {name!r}, in {data} it is {label!r}; expected a file that names "
                "its classes as the data do"
            )
