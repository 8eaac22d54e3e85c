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

from rootmodels.data_error import DataError
from rootmodels.parquet_rows import iterate_rows, row_count
from rootmodels.pictures import MOST_PIXELS, PictureError, opened, pixels_of, to_rgb

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
    files = find_files(path, split)
    parts = [_read_file(file) for file in files]
    return LabelledImages(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )


def find_files(path: Path, split: Split) -> list[Path]:
    """The files of one split at ``path``, a folder or a parquet file.

    Raises:
        DataError: if there are none.
    """
    if path.is_file():
        return [path]
    files = sorted(path.glob(f"{split}-*.parquet")) or sorted(
        path.glob(f"plain_text/{split}-*.parquet")
    )
    if not files:
        raise DataError(
            f"no CIFAR-10 at {path}: expected a parquet file, or a folder with {split}-*.parquet "
            f"or plain_text/{split}-*.parquet"
        )
    return files


def _read_file(path: Path) -> LabelledImages:
    images = np.empty((row_count(path, labels=True), 3, 32, 32), np.uint8)
    labels = np.empty(len(images), np.int64)
    for number, row in enumerate(iterate_rows(path, labels=True)):
        image = decode_image(row.name, row.content, (32, 32))
        if not 0 <= row.label < _CLASSES:
            raise DataError(f"{row.name} has the label {row.label}, expected 0 to {_CLASSES - 1}")
        images[number], labels[number] = image, row.label
    return LabelledImages(images, labels)


def decode_image(
    name: str, data: bytes, size: tuple[int, int] | None = None, *, max_pixels: int = MOST_PIXELS
) -> NDArray[np.uint8]:
    """An encoded image as uint8 [3, H, W], RGB. ``name`` is what an error calls it.

    What its header says is looked at first: one that is too large is not decoded.

    Raises:
        DataError: if it cannot be decoded, has more than ``max_pixels``, or another height and width.
    """
    try:
        with opened(data, max_pixels=max_pixels) as file:
            # Not upright yet: height and width may still change places.
            came: tuple[int, ...] = (file.size[1], file.size[0])
            if size is None or sorted(came) == sorted(size):
                image = pixels_of(to_rgb(file))
                came = image.shape[1:]
    except PictureError as error:
        raise DataError(f"{name} cannot be decoded: it {error}") from error
    if size is not None and came != size:
        raise DataError(f"{name} is {came}, expected {size[0]}x{size[1]}")
    return image
