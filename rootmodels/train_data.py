"""What networks are trained on: CIFAR-10, or a folder of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.cifar10_facts import CLASSES as CIFAR10_CLASSES
from rootmodels.image_folder import class_folders, is_image_folder, read_image_folder


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
