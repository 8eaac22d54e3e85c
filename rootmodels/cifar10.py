"""CIFAR-10 from parquet files in the layout that the Hugging Face hub uses.

A data set is a folder that holds ``train-*.parquet`` and ``test-*.parquet`` (also below
``plain_text/``), or one parquet file. Rows have ``img.bytes``, an encoded image, and ``label``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rootserve.pictures import DataError
from rootserve.pictures.parquet import find_files, iterate_rows, row_count

Split = Literal["train", "test"]
_CLASSES = 10


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """``images`` is uint8 [N, 3, 32, 32], RGB, 0..255; ``labels`` is int64 [N], 0..9."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def sha256(self) -> str:
        """Hash of the decoded pixels and labels: equal for equal data, however it was stored."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def read_cifar10(path: Path, split: Split) -> LabelledImages:
    """Read one split from ``path``, a folder or a parquet file.

    Raises:
        DataError: if nothing is there, a column is missing, or an image is not 32x32.
    """
    files = find_files(path, split, labels=True)
    parts = [_read_file(file) for file in files]
    return LabelledImages(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )


def _read_file(path: Path) -> LabelledImages:
    images = np.empty((row_count(path, labels=True), 3, 32, 32), np.uint8)
    labels = np.empty(len(images), np.int64)
    for number, row in enumerate(iterate_rows(path, labels=True)):
        image = row.pixels((32, 32))
        if not 0 <= row.label < _CLASSES:
            raise DataError(f"{row.name} has the label {row.label}, expected 0 to {_CLASSES - 1}")
        images[number], labels[number] = image, row.label
    return LabelledImages(images, labels)
