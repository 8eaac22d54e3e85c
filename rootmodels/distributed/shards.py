"""Images in shards: found in files, told apart by what they hold, read again where they are computed."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rootserve.pictures import DataError, PictureError
from rootserve.pictures.decode import centre, opened, to_rgb
from rootserve.pictures.parquet import find_files, iterate_rows

_PARQUET = ".parquet"
_PICTURES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class Source:
    """What one task looks at: a parquet file, or some picture files in the order of their names."""

    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.files[0] if len(self.files) == 1 else f"{self.files[0]} to {self.files[-1]}"

    @property
    def is_table(self) -> bool:
        """Whether it is a parquet file."""
        return self.files[0].endswith(_PARQUET)


@dataclass(frozen=True, slots=True)
class Shard:
    """Images ``start`` to ``start + images`` of ``source``; ``sha256`` is that of their files' bytes."""

    source: Source
    start: int
    images: int
    sha256: str

    @property
    def name(self) -> str:
        """How messages call it."""
        rows = f", images {self.start} to {self.start + self.images - 1}"
        return self.source.name + (rows if self.source.is_table else "")


@dataclass(frozen=True, slots=True)
class Frame:
    """What pictures become: ``size`` x ``size`` pixels, the middle once their shorter side is ``short_side``.

    Images in parquet files have that size.
    """

    size: int
    short_side: int


def find_sources(data: str, images: int) -> list[Source]:
    """The parquet files and pictures at ``data``, a file, a folder or a pattern; pictures by ``images``.

    A folder is read as the service's clients do: its pictures, or its ``test-*.parquet``; failing those, all
    its parquet files.

    Raises:
        DataError: if there are none.
    """
    files = sorted(_files(data))
    tables = [Source((name,)) for name in files if name.endswith(_PARQUET)]
    pictures = [name for name in files if Path(name).suffix.lower() in _PICTURES]
    if not tables and not pictures:
        raise DataError(
            f"{data}: no such images; expected parquet files or pictures, a folder of them, or a "
            "pattern such as 'DIR/*.parquet'"
        )
    cuts = range(0, len(pictures), images)
    return [*tables, *(Source(tuple(pictures[cut : cut + images])) for cut in cuts)]


def _files(data: str) -> list[str]:
    path = Path(data)
    if path.is_file():
        return [str(path.absolute())]
    if path.is_dir():
        pictures = [each for each in path.iterdir() if each.suffix.lower() in _PICTURES]
        if not pictures:
            try:
                pictures = find_files(path, "test")
            except DataError:
                pictures = list(path.glob(f"*{_PARQUET}"))
        return [str(each.absolute()) for each in pictures]
    return [str(Path(name).absolute()) for name in glob.iglob(data, recursive=True)]  # noqa: PTH207 - absolute ones too


def look_at(source: Source, images: int) -> list[Shard]:
    """The shards of ``source``, of ``images`` each; the last one of a file may have fewer.

    Raises:
        DataError: if it is not there, or cannot be read.
    """
    contents = _contents(source, 0)
    shards: list[Shard] = []
    start = 0
    while part := list(islice(contents, images)):
        digest = hashlib.sha256()
        for content in part:
            _add(digest, content)
        shards.append(Shard(source, start, len(part), digest.hexdigest()))
        start += len(part)
    if not shards:
        raise DataError(f"{source.name}: holds no images")
    return shards


def read(shard: Shard, frame: Frame, rows: int) -> Iterator[NDArray[np.uint8]]:
    """The images of ``shard``, uint8 [at most ``rows``, 3, H, W], RGB, 0..255.

    Raises:
        DataError: if one cannot be read or decoded or has another size, or, in the end, if they are not those
            that :func:`look_at` saw.
    """
    digest = hashlib.sha256()
    contents = islice(_contents(shard.source, shard.start), shard.images)
    done = 0
    while part := list(islice(contents, rows)):
        for content in part:
            _add(digest, content)
        yield np.stack(
            [_pixels(shard, done + number, content, frame) for number, content in enumerate(part)]
        )
        done += len(part)
    if digest.hexdigest() != shard.sha256:
        raise DataError(f"{shard.name}: was changed while it was analysed")


def _add(digest: hashlib._Hash, content: bytes) -> None:
    # With its length: the same bytes cut into other images are another shard.
    digest.update(len(content).to_bytes(8, "little"))
    digest.update(content)


def _contents(source: Source, start: int) -> Iterator[bytes]:
    """The encoded images of ``source`` from ``start`` on.

    Raises:
        DataError: naming the file.
    """
    if source.is_table:
        for row in iterate_rows(Path(source.files[0]), start=start):
            yield row.content
        return
    for name in source.files[start:]:
        try:
            yield Path(name).read_bytes()
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror})") from None


def _pixels(shard: Shard, number: int, content: bytes, frame: Frame) -> NDArray[np.uint8]:
    name = _image_name(shard, number)
    try:
        with opened(content) as file:
            if not shard.source.is_table:
                file.draft(None, (2 * frame.short_side,) * 2)  # as the service does
                return centre(to_rgb(file), frame.size, frame.short_side)
            picture = to_rgb(file)
    except PictureError as error:
        raise DataError(f"{name} {error}") from None
    if picture.size != (frame.size, frame.size):
        width, height = picture.size
        raise DataError(f"{name} is {width}x{height}, expected {frame.size}x{frame.size}")
    image = np.asarray(picture, np.uint8).transpose(2, 0, 1)
    return np.ascontiguousarray(image)


def _image_name(shard: Shard, number: int) -> str:
    files: Sequence[str] = shard.source.files
    return f"{files[0]}: image {shard.start + number}" if shard.source.is_table else files[number]
