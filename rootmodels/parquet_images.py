"""Images of a parquet data set of any length, read a few at a time, without labels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rootserve.pictures import DataError
from rootserve.pictures.decode import MOST_PIXELS
from rootserve.pictures.parquet import Row, find_files, iterate_rows, row_count


class ParquetImages:
    """The images of a parquet file, or of a folder's ``test-*.parquet``, in their order.

    Reading on where the last read ended is cheap; anything else begins at the first row again. Holds no
    more than one batch of encoded images. The first image has at most ``max_pixels``, or is not decoded.

    Raises:
        DataError: if there is no such file, it is not of that form, or it holds no images.
    """

    def __init__(self, path: Path, max_pixels: int = MOST_PIXELS) -> None:
        self._path = path
        self._files = find_files(path, "test")
        self.images = sum(row_count(file) for file in self._files)
        if self.images == 0:
            raise DataError(f"{path}: holds no images")
        self._position = 0
        self._rows = self._iterate()
        first = self._next().pixels(max_pixels=max_pixels)
        self.size: tuple[int, int] = (first.shape[1], first.shape[2])
        """Height and width of the first image; all others have to have them too."""

    def read(self, start: int, rows: int) -> NDArray[np.uint8]:
        """Images ``start`` to ``start + rows``, uint8 [rows, 3, H, W].

        Raises:
            DataError: if there are not as many, or one of them cannot be decoded, or has another size than
                the first; it is not decoded then.
        """
        if start + rows > self.images:
            raise DataError(
                f"{self._path}: holds {self.images} images, expected at least {start + rows}"
            )
        if start < self._position:
            self._position = 0
            self._rows = self._iterate()
        while self._position < start:
            self._next()
        images = np.empty((rows, 3, *self.size), np.uint8)
        for number in range(rows):
            images[number] = self._next().pixels(self.size)
        return images

    def _next(self) -> Row:
        self._position += 1
        row = next(self._rows, None)
        if row is None:
            raise DataError(f"{self._path}: holds fewer images than it says it has")
        return row

    def _iterate(self) -> Iterator[Row]:
        return chain.from_iterable(map(iterate_rows, self._files))
