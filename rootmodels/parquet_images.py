"""Images of a parquet data set of any length, read a few at a time, without labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rootmodels.cifar10 import decode_image, find_files
from rootmodels.data_error import DataError

_BATCH_ROWS = 256


class ParquetImages:
    """The images of a parquet file, or of a folder's ``test-*.parquet``, in their order.

    Reading on where the last read ended is cheap; anything else begins at the first row again. Holds no
    more than one batch of encoded images.

    Raises:
        DataError: if there is no such file, it is not of that form, or it holds no images.
    """

    def __init__(self, path: Path) -> None:
        self._files = find_files(path, "test")
        self.images = sum(_row_count(file) for file in self._files)
        if self.images == 0:
            raise DataError(f"{path} holds no images")
        self._position = 0
        self._rows = self._iterate()
        first = decode_image(*self._next())
        self.size: tuple[int, int] = (first.shape[1], first.shape[2])
        """Height and width of the first image; all others have to have them too."""

    def read(self, start: int, rows: int) -> NDArray[np.uint8]:
        """Images ``start`` to ``start + rows``, uint8 [rows, 3, H, W].

        Raises:
            DataError: if an image cannot be decoded, or has another size than the first.
            IndexError: if there are not as many.
        """
        if start + rows > self.images:
            raise IndexError(f"images {start} to {start + rows} of {self.images}")
        if start < self._position:
            self._position = 0
            self._rows = self._iterate()
        while self._position < start:
            self._next()
        images = np.empty((rows, 3, *self.size), np.uint8)
        for row in range(rows):
            name, data = self._next()
            image = decode_image(name, data)
            if image.shape[1:] != self.size:
                height, width = self.size
                raise DataError(f"{name} is {image.shape[1:]}, expected {height}x{width}")
            images[row] = image
        return images

    def _next(self) -> tuple[str, bytes]:
        self._position += 1
        return next(self._rows)

    def _iterate(self) -> Iterator[tuple[str, bytes]]:
        """What each image is called in errors, and its encoded bytes."""
        for file in self._files:
            with pq.ParquetFile(file) as parquet:
                row = 0
                for batch in parquet.iter_batches(_BATCH_ROWS, columns=["img"]):
                    for data in batch.column("img").field("bytes").to_pylist():
                        yield f"{file}: image {row}", data or b""
                        row += 1


def _row_count(file: Path) -> int:
    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            field = schema.field("img").type if "img" in schema.names else None
            if field is None or not pa.types.is_struct(field) or field.get_field_index("bytes") < 0:
                raise DataError(f"{file} has no column img with a field bytes")
            rows: int = parquet.metadata.num_rows
            return rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} is not a readable parquet file: {error}") from error
