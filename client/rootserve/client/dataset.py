"""Labelled images from parquet files in the Hugging Face layout."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rootserve.client.errors import InputError

_PATTERNS = ("test-*.parquet", "plain_text/test-*.parquet")
_EXPECTED = "expected parquet with the columns img (struct with binary bytes) and label (integer)"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images uint8 [N, 3, H, W], RGB, and labels int64 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_dataset(path: Path, limit: int | None = None) -> Dataset:
    """Read the images and labels of a data set.

    Args:
        path: A parquet file, or a folder with `test-*.parquet` or `plain_text/test-*.parquet`.
        limit: Read only this many, from the beginning; None reads all.

    Raises:
        InputError: Nothing of the kind is there, or its content is of another form.
    """
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for image, label in islice(_rows(path, labels=True), limit):
        images.append(image)
        labels.append(label)
    if not images:
        raise InputError(f"{path}: holds no images")
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        sizes = ", ".join(sorted(f"{width}x{height}" for _, height, width in shapes))
        raise InputError(f"{path}: images of different sizes ({sizes}); expected one size")
    return Dataset(np.stack(images), np.array(labels, np.int64))


def iterate_images(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The images of a data set, uint8 [3, H, W], one by one; no labels are needed.

    Args:
        path: As for `read_dataset`.

    Raises:
        InputError: Nothing of the kind is there, or its content is of another form.
    """
    return (image for image, _ in _rows(path, labels=False))


def count_images(path: Path) -> int:
    """How many images a data set has, without reading them or needing labels.

    Raises:
        InputError: Nothing of the kind is there, or its content is of another form.
    """
    return sum(_count(file) for file in _files(path))


def _rows(path: Path, *, labels: bool) -> Iterator[tuple[NDArray[np.uint8], int]]:
    return chain.from_iterable(_iterate_file(file, labels=labels) for file in _files(path))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder; {_EXPECTED}")
    for pattern in _PATTERNS:
        if files := sorted(path.glob(pattern)):
            return files
    raise InputError(f"{path}: holds neither {' nor '.join(_PATTERNS)}")


def _iterate_file(file: Path, *, labels: bool) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Each image and its label, 0 where none is asked for."""
    with _opened(file, labels=labels) as parquet:
        row = 0
        for batch in parquet.iter_batches(1000, columns=["img", "label"] if labels else ["img"]):
            cells = batch.column("img").to_pylist()
            marks = batch.column("label").to_pylist() if labels else [0] * len(cells)
            for cell, label in zip(cells, marks, strict=True):
                yield _decode(file, row, cell), _checked_label(file, row, label)
                row += 1


def _count(file: Path) -> int:
    with _opened(file, labels=False) as parquet:
        return int(parquet.metadata.num_rows)


@contextmanager
def _opened(file: Path, *, labels: bool) -> Iterator[Any]:
    # Imported where a data set is read, so that nothing else pays for it.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(file) as parquet:
            _check_schema(file, parquet.schema_arrow, labels=labels)
            yield parquet
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{file}: cannot be read ({reason}); {_EXPECTED}") from None


def _check_schema(file: Path, schema: Any, *, labels: bool) -> None:
    import pyarrow as pa  # noqa: PLC0415 - see above

    image = schema.field("img").type if "img" in schema.names else None
    index = image.get_field_index("bytes") if image and pa.types.is_struct(image) else -1
    content = image.field(index).type if image and index >= 0 else None
    fits = content is not None and (
        pa.types.is_binary(content) or pa.types.is_large_binary(content)
    )
    if labels and not ("label" in schema.names and pa.types.is_integer(schema.field("label").type)):
        fits = False
    if not fits:
        found = ", ".join(f"{field.name} ({field.type})" for field in schema)[:200] or "none"
        raise InputError(f"{file}: has the columns {found}; {_EXPECTED}")


def _checked_label(file: Path, row: int, label: int | None) -> int:
    if label is None:
        raise InputError(f"{file}: image {row} has no label; {_EXPECTED}")
    return label


def _decode(file: Path, row: int, cell: Mapping[str, Any] | None) -> NDArray[np.uint8]:
    from rootserve.client.pixels import PictureError, opened, pixels_of, to_rgb  # noqa: PLC0415 - see above

    content, path = (cell or {}).get("bytes"), (cell or {}).get("path")
    if not content:
        only = f", only the path {path[:80]!r}" if path else ""
        raise InputError(f"{file}: image {row} has no bytes{only}; {_EXPECTED}")
    try:
        with opened(content) as picture:
            return pixels_of(to_rgb(picture))
    except PictureError as error:
        raise InputError(f"{file}: image {row} {error}") from None
