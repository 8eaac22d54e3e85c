import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rootmodels.cifar10 import read_cifar10
from rootmodels.parquet_images import ParquetImages
from rootserve.pictures import DataError


def write(
    path: Path, sizes: list[tuple[int, int]], columns: tuple[str, str] = ("img", "label")
) -> None:
    cells = []
    for size in sizes:
        buffer = io.BytesIO()
        Image.new("RGB", size, (10, 20, 30)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": ""})
    table = pa.table({columns[0]: cells, columns[1]: list(range(len(sizes)))})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def test_the_sample_has_a_hundred_images_of_each_class(sample_path: Path) -> None:
    data = read_cifar10(sample_path, "test")
    assert data.images.shape == (1000, 3, 32, 32)
    assert data.images.dtype == np.uint8
    assert np.bincount(data.labels).tolist() == [100] * 10


def test_pixels_are_rgb_planes(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", [(32, 32)])
    data = read_cifar10(tmp_path / "x.parquet", "train")
    assert data.images[0, :, 5, 7].tolist() == [10, 20, 30]


@pytest.mark.parametrize("folder", ["", "plain_text"])
def test_a_folder_may_have_the_files_in_it_or_below_plain_text(tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder / "train-00000-of-00002.parquet", [(32, 32)])
    write(tmp_path / folder / "train-00001-of-00002.parquet", [(32, 32)] * 2)
    assert len(read_cifar10(tmp_path, "train")) == 3
    with pytest.raises(DataError, match=r"test-\*\.parquet"):
        read_cifar10(tmp_path, "test")


def test_equal_data_has_an_equal_hash(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [(32, 32)])
    write(tmp_path / "b.parquet", [(32, 32)])
    write(tmp_path / "c.parquet", [(32, 32)] * 2)
    a, b, c = (read_cifar10(tmp_path / f"{name}.parquet", "test").sha256() for name in "abc")
    assert a == b != c


def test_bad_files_are_refused_with_what_was_wrong(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"text\.parquet: cannot be read"):
        read_cifar10(tmp_path / "text.parquet", "test")
    write(tmp_path / "columns.parquet", [(32, 32)], ("image", "label"))
    with pytest.raises(
        DataError, match=r"has the columns image .*; expected parquet with the columns img"
    ):
        read_cifar10(tmp_path / "columns.parquet", "test")
    write(tmp_path / "size.parquet", [(32, 32), (16, 24)])
    with pytest.raises(DataError, match=r"image 1 is \(24, 16\), expected 32x32"):
        read_cifar10(tmp_path / "size.parquet", "test")
    cells = pa.table({"img": [{"bytes": b"no image", "path": ""}], "label": [0]})
    pq.write_table(cells, tmp_path / "pixels.parquet")
    with pytest.raises(DataError, match="image 0 is not a picture"):
        read_cifar10(tmp_path / "pixels.parquet", "test")
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read_cifar10(tmp_path / "nowhere", "test")


def write_cells(path: Path, cells: pa.Array, labels: list[int | None]) -> Path:
    pq.write_table(pa.table({"img": cells, "label": pa.array(labels, pa.int64())}), path)
    return path


def png(size: tuple[int, int] = (32, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 20, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def huge_png() -> bytes:
    """The header of a picture of 60,000 x 60,000 pixels."""
    content = bytearray(png())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("cell", "label", "words"),
    [
        ({"bytes": png(), "path": ""}, None, "image 1 has no label"),
        ({"bytes": png(), "path": ""}, 10, "image 1 has the label 10, expected 0 to 9"),
        ({"bytes": png(), "path": ""}, -1, "image 1 has the label -1, expected 0 to 9"),
        ({"bytes": None, "path": "cat.png"}, 0, "image 1 has no bytes, only the path 'cat.png'"),
        ({"bytes": b"", "path": None}, 0, "image 1 has no bytes"),
        (None, 0, "image 1 has no bytes"),
        ({"bytes": huge_png(), "path": ""}, 0, r"image 1 .*(3600\.0|more than 179) million"),
        ({"bytes": png()[:60], "path": ""}, 0, "image 1 is damaged"),
    ],
)
def test_a_bad_row_is_named(
    tmp_path: Path, cell: dict[str, object] | None, label: int | None, words: str
) -> None:
    """A null label became -9223372036854775808, and trained on."""
    cells = pa.array([{"bytes": png(), "path": ""}, cell], _IMAGE)
    file = write_cells(tmp_path / "rows.parquet", cells, [3, label])
    with pytest.raises(DataError, match=rf"rows\.parquet: {words}") as error:
        read_cifar10(file, "test")
    assert len(str(error.value).splitlines()) == 1
    if label in range(10):
        with pytest.raises(DataError, match=rf"rows\.parquet: {words}"):
            ParquetImages(file).read(0, 2)


def test_bad_columns_and_pages_are_one_line_that_names_the_file(tmp_path: Path) -> None:
    strings = pa.array([{"bytes": "text", "path": ""}])
    file = write_cells(tmp_path / "strings.parquet", strings, [0])
    for read in (lambda: read_cifar10(file, "test"), lambda: ParquetImages(file)):
        with pytest.raises(
            DataError, match=r"strings\.parquet: has the columns img \(struct<bytes: string"
        ):
            read()
    cells = pa.array([{"bytes": png(), "path": ""}] * 50, _IMAGE)
    file = write_cells(tmp_path / "page.parquet", cells, [0] * 50)
    content = bytearray(file.read_bytes())
    content[4:60] = b"\xff" * 56
    file.write_bytes(content)
    for read in (lambda: read_cifar10(file, "test"), lambda: ParquetImages(file)):
        with pytest.raises(
            DataError, match=r"page\.parquet: cannot be read from image 0 on \("
        ) as error:
            read()
        assert len(str(error.value).splitlines()) == 1


def test_whatever_is_damaged_is_one_line_about_the_file(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    write(good, [(8, 8)] * 8)
    content, rng = good.read_bytes(), random.Random(1)
    refused = []
    for _ in range(1000):
        damaged = bytearray(content)
        for _ in range(rng.choice((1, 2, 5))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        bad.write_bytes(damaged[: rng.randrange(len(damaged))] if rng.random() < 0.1 else damaged)
        try:
            images = ParquetImages(bad)
            images.read(0, min(images.images, 100))
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 500
    assert all(str(bad) in line and len(line.splitlines()) == 1 for line in refused)


def test_a_batch_that_is_damaged_names_its_first_row(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    cells, rng = [], np.random.default_rng(0)
    for _ in range(400):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": ""})
    pq.write_table(pa.table({"img": cells}), file, row_group_size=256)
    images = ParquetImages(file)
    assert len(images.read(0, 400)) == 400
    group = pq.read_metadata(file).row_group(1).column(0)
    damaged = bytearray(file.read_bytes())
    begin = group.dictionary_page_offset or group.data_page_offset
    damaged[begin : begin + 16] = b"\xff" * 16
    file.write_bytes(damaged)
    images = ParquetImages(file)
    assert len(images.read(0, 256)) == 256
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read from image 256 on \("):
        images.read(256, 1)


def test_a_file_that_promises_more_rows_than_it_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x.parquet", [(8, 8)] * 3)
    monkeypatch.setattr("rootmodels.parquet_images.row_count", lambda _: 5)
    images = ParquetImages(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: holds fewer images than it says it has"):
        images.read(0, 5)
    with pytest.raises(DataError, match=r"x\.parquet: holds 5 images, expected at least 6"):
        images.read(0, 6)


def test_an_image_that_is_too_large_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "later.parquet", [(8, 8), (5000, 5000)])
    write(tmp_path / "first.parquet", [(5000, 5000)])
    images = ParquetImages(tmp_path / "later.parquet")

    def decode(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("rootserve.pictures.parquet.to_rgb", decode)
    with pytest.raises(DataError, match=r"image 0 .* it was decoded"):
        images.read(0, 1)
    with pytest.raises(DataError, match=r"image 1 is \(5000, 5000\), expected 8x8"):
        images.read(1, 1)
    with pytest.raises(DataError, match=r"image 0 .* 5000 x 5000 pixels, .* at most 20 million"):
        ParquetImages(tmp_path / "first.parquet", 20_000_000)
