"""The data sets that the service can analyse without images being sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rootserve.pictures import DataError


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set on this machine: its images and their height and width in pixels."""

    name: str
    path: Path
    images: int
    height: int
    width: int


def find_datasets(paths: Mapping[str, Path], max_pixels: int) -> dict[str, Dataset]:
    """Look at each data set, by name; an image with more than ``max_pixels`` is not decoded.

    Raises:
        DataError: naming the first one that cannot be read.
    """
    if not paths:
        return {}
    # Takes a while and some memory: only where there are data sets.
    from rootmodels.parquet_images import ParquetImages  # noqa: PLC0415

    found = {}
    for name, path in paths.items():
        try:
            images = ParquetImages(path, max_pixels)
        except DataError as error:
            raise DataError(f"data set {name}: {error}") from error
        found[name] = Dataset(name, path, images.images, *images.size)
    return found
