"""Labelled images from parquet files in the Hugging Face layout."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.errors import InputError

_PATTERNS = ("test-*.parquet", "plain_text/test-*.parquet")
_EXPECTED = "expected parquet with the columns img (struct with bytes) and label (integer)"


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
    for image, label in iterate_dataset(path, limit):
        images.append(image)
        labels.append(label)
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        sizes = ", ".join(sorted(f"{width}x{height}" for _, height, width in shapes))
        raise InputError(f"{path}: images of different sizes ({sizes}); expected one size")
    return Dataset(np.stack(images), np.array(labels, np.int64))


def iterate_dataset(
    path: Path, limit: int | None = None
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """The images, uint8 [3, H, W], and labels of a data set one by one, without holding them all.

    Args:
        path: As for `read_dataset`.
        limit: End after this many; None reads all.

    Raises:
        InputError: Nothing of the kind is there, or its content is of another form.
    """
    rows = islice(chain.from_iterable(_iterate_file(file) for file in _files(path)), limit)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise InputError(f"{path}: holds no images")


def count_images(path: Path) -> int:
    """How many images a data set has, without reading them.

    Raises:
        InputError: Nothing of the kind is there, or its content is of another form.
    """
    return sum(_count(file) for file in _files(path))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder; {_EXPECTED}")
    for pattern in _PATTERNS:
        if files := sorted(path.glob(pattern)):
            return files
    raise InputError(f"{path}: holds neither {' nor '.join(_PATTERNS)}")


def _iterate_file(file: Path) -> Iterator[tuple[NDArray[np.uint8], int]]:
    with _opened(file) as parquet:
        row = 0
        for batch in parquet.iter_batches(1000, columns=["img", "label"]):
            pictures = batch.column("img").field("bytes").to_pylist()
            for data, label in zip(pictures, batch.column("label").to_pylist(), strict=True):
                yield _decode(file, row, data), _checked_label(file, row, label)
                row += 1


def _count(file: Path) -> int:
    with _opened(file) as parquet:
        return int(parquet.metadata.num_rows)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    # Imported where a data set is read, so that nothing else pays for it.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(file) as parquet:
            _check_schema(file, parquet.schema_arrow)
            yield parquet
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file}: cannot be read ({reason}); {_EXPECTED}") from None


def _check_schema(file: Path, schema: Any) -> None:
    import pyarrow as pa  # noqa: PLC0415 - see above

    names = set(schema.names)
    fits = (
        {"img", "label"} <= names
        and pa.types.is_struct(schema.field("img").type)
        and schema.field("img").type.get_field_index("bytes") >= 0
        and pa.types.is_integer(schema.field("label").type)
    )
    if not fits:
        found = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
        raise InputError(f"{file}: has the columns {found}; {_EXPECTED}")


def _checked_label(file: Path, row: int, label: int | None) -> int:
    if label is None:
        raise InputError(f"{file}: image {row} has no label; {_EXPECTED}")
    return label


def _decode(file: Path, row: int, data: bytes | None) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - see above

    try:
        with Image.open(io.BytesIO(data or b"")) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError):
        raise InputError(f"{file}: image {row} is not a picture such as PNG or JPEG") from None
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
