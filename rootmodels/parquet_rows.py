"""Rows of parquet files in the layout of the Hugging Face hub: encoded images, and labels if wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rootmodels.data_error import DataError

_BATCH_ROWS = 256


class Row(NamedTuple):
    """One row: what errors call it, its encoded image, and its label, -1 where none was asked for."""

    name: str
    content: bytes
    label: int


def row_count(file: Path, *, labels: bool = False) -> int:
    """How many rows a file of the right columns has.

    Raises:
        DataError: if it cannot be read, or has other columns; one line that names the file.
    """
    with _opened(file, labels=labels) as parquet:
        count = int(parquet.metadata.num_rows)
    if count < 0:
        raise DataError(f"{file} is not a readable parquet file: it says that it has {count} rows")
    return count


def iterate_rows(file: Path, *, labels: bool = False) -> Iterator[Row]:
    """The rows of a file, a few in memory at a time.

    Raises:
        DataError: as :func:`row_count`, or if a row lacks its image or label; then it names the row too.
    """
    with _opened(file, labels=labels) as parquet:
        number = 0
        for batch in _batches(file, parquet, labels=labels):
            cells = batch.column("img").to_pylist()
            marks = batch.column("label").to_pylist() if labels else [-1] * len(cells)
            for cell, label in zip(cells, marks, strict=True):
                name = f"{file}: image {number}"
                content = (cell or {}).get("bytes")
                if not content:
                    path = (cell or {}).get("path")
                    raise DataError(
                        f"{name} has no bytes" + (f", only the path {path[:80]!r}" if path else "")
                    )
                if label is None:
                    raise DataError(f"{name} has no label")
                yield Row(name, content, label)
                number += 1
        if number != parquet.metadata.num_rows:
            raise DataError(
                f"{file} has {number} images, expected the {parquet.metadata.num_rows} it says it has"
            )


def _batches(file: Path, parquet: pq.ParquetFile, *, labels: bool) -> Iterator[pa.RecordBatch]:
    """What is in ``parquet``, a few rows at a time.

    Raises:
        DataError: if a batch is damaged; names its first row.
    """
    batches = parquet.iter_batches(_BATCH_ROWS, columns=["img", "label"] if labels else ["img"])
    number = 0
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:  # damage makes pyarrow raise whatever it comes upon
            raise DataError(
                f"{file} cannot be read from image {number} on: {_reason(error)}"
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
        raise DataError(f"{file} is not a readable parquet file: {_reason(error)}") from error


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
    wanted = "img (struct with the binary field bytes)"
    if labels:
        wanted += " and label (integer)"
        fits = fits and "label" in schema.names and pa.types.is_integer(schema.field("label").type)
    if not fits:
        found = ", ".join(f"{field.name} ({field.type})" for field in schema)[:200] or "none"
        raise DataError(f"{file} has the columns {found}; expected {wanted}")
