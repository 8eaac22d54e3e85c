"""Rows of parquet files in the layout of the Hugging Face hub: encoded images, and labels if wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rootserve.pictures import DataError, PictureError
from rootserve.pictures.decode import MOST_PIXELS, opened, pixels_of, to_rgb

_BATCH_ROWS = 256
_EXPECTED = {
    False: "expected parquet with the column img (struct with binary bytes)",
    True: "expected parquet with the columns img (struct with binary bytes) and label (integer)",
}
"""By whether labels are wanted."""


class Row(NamedTuple):
    """One row: what errors call it, its encoded image, and its label, -1 where none was asked for."""

    name: str
    content: bytes
    label: int

    def pixels(
        self, size: tuple[int, int] | None = None, *, max_pixels: int = MOST_PIXELS
    ) -> NDArray[np.uint8]:
        """The image as uint8 [3, H, W], RGB.

        What its header says is looked at first: an image that is too large is not decoded.

        Raises:
            DataError: if it cannot be decoded, has more than ``max_pixels``, or not the height and width
                that ``size`` wants.
        """
        try:
            with opened(self.content, max_pixels=max_pixels) as file:
                # Not upright yet: height and width may still change places.
                came: tuple[int, ...] = (file.size[1], file.size[0])
                if size is None or sorted(came) == sorted(size):
                    image = pixels_of(to_rgb(file))
                    came = image.shape[1:]
        except PictureError as error:
            raise DataError(f"{self.name} {error}") from error
        if size is not None and came != size:
            raise DataError(f"{self.name} is {came}, expected {size[0]}x{size[1]}")
        return image


def find_files(path: Path, split: str, *, labels: bool = False) -> list[Path]:
    """The files of a split at ``path``: itself, or a folder's ``SPLIT-*.parquet``, also below ``plain_text``.

    Raises:
        DataError: if there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; {_EXPECTED[labels]}")
    patterns = (f"{split}-*.parquet", f"plain_text/{split}-*.parquet")
    files = next(filter(None, (sorted(path.glob(pattern)) for pattern in patterns)), None)
    if files is None:
        raise DataError(f"{path}: holds neither {' nor '.join(patterns)}")
    return files


def row_count(file: Path, *, labels: bool = False) -> int:
    """How many rows a file of the right columns has.

    Raises:
        DataError: if it cannot be read, or has other columns; one line that names the file.
    """
    with _opened(file, labels=labels) as parquet:
        count = int(parquet.metadata.num_rows)
    if count < 0:
        raise DataError(
            f"{file}: cannot be read (it says that it has {count} rows); {_EXPECTED[labels]}"
        )
    return count


def iterate_rows(file: Path, *, labels: bool = False, start: int = 0) -> Iterator[Row]:
    """The rows of a file, a few in memory at a time, from row ``start`` on.

    Row groups that end before ``start`` are not read.

    Raises:
        DataError: as :func:`row_count`, or if a row lacks its image or label; then it names the row too.
    """
    with _opened(file, labels=labels) as parquet:
        groups, number = _groups_from(parquet, start)
        for batch in _batches(file, parquet, labels=labels, groups=groups, number=number):
            cells = batch.column("img").to_pylist()
            marks = batch.column("label").to_pylist() if labels else [-1] * len(cells)
            for cell, label in zip(cells, marks, strict=True):
                name = f"{file}: image {number}"
                content, path = (cell or {}).get("bytes"), (cell or {}).get("path")
                if not content:
                    only = f", only the path {path[:80]!r}" if path else ""
                    raise DataError(f"{name} has no bytes{only}; {_EXPECTED[labels]}")
                if label is None:
                    raise DataError(f"{name} has no label; {_EXPECTED[labels]}")
                if number >= start:
                    yield Row(name, content, label)
                number += 1
        if number != parquet.metadata.num_rows:
            said = parquet.metadata.num_rows
            raise DataError(f"{file}: holds {number} images, expected the {said} it says it has")


def _groups_from(parquet: pq.ParquetFile, start: int) -> tuple[list[int], int]:
    """The row groups that hold row ``start`` or come after it, and the number of their first row."""
    number, groups = 0, list(range(parquet.metadata.num_row_groups))
    while groups and number + parquet.metadata.row_group(groups[0]).num_rows <= start:
        number += parquet.metadata.row_group(groups.pop(0)).num_rows
    return groups, number


def _batches(
    file: Path, parquet: pq.ParquetFile, *, labels: bool, groups: list[int], number: int
) -> Iterator[pa.RecordBatch]:
    """What the row ``groups`` of ``parquet`` hold, a few rows at a time, the first one number ``number``.

    Raises:
        DataError: if a batch is damaged; names its first row.
    """
    columns = ["img", "label"] if labels else ["img"]
    batches = parquet.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns)
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:  # damage makes pyarrow raise whatever it comes upon
            raise DataError(
                f"{file}: cannot be read from image {number} on ({_reason(error)}); {_EXPECTED[labels]}"
            ) from error
        if batch is None:
            return
        yield batch
        number += len(batch)


@contextmanager
def _opened(file: Path, *, labels: bool) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file) as parquet:
            _check_columns(file, parquet.schema_arrow, labels=labels)
            yield parquet
    except DataError:
        raise
    except Exception as error:  # as for a batch: not all of it is an ArrowException
        raise DataError(
            f"{file}: cannot be read ({_reason(error)}); {_EXPECTED[labels]}"
        ) from error


def _reason(error: Exception) -> str:
    """What pyarrow says, as part of one line."""
    return str(error).splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _check_columns(file: Path, schema: pa.Schema, *, labels: bool) -> None:
    image = schema.field("img").type if "img" in schema.names else None
    index = image.get_field_index("bytes") if image and pa.types.is_struct(image) else -1
    content = image.field(index).type if image and index >= 0 else None
    fits = content is not None and (
        pa.types.is_binary(content) or pa.types.is_large_binary(content)
    )
    if labels:
        fits = fits and "label" in schema.names and pa.types.is_integer(schema.field("label").type)
    if not fits:
        found = ", ".join(f"{field.name} ({field.type})" for field in schema)[:200] or "none"
        raise DataError(f"{file}: has the columns {found}; {_EXPECTED[labels]}")
