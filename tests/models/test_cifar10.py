import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rootmodels.cifar10 import read_cifar10
from rootmodels.data_error import DataError


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
    with pytest.raises(DataError, match=r"text\.parquet is not a readable parquet file"):
        read_cifar10(tmp_path / "text.parquet", "test")
    write(tmp_path / "columns.parquet", [(32, 32)], ("image", "label"))
    with pytest.raises(DataError, match="no column img; expected img"):
        read_cifar10(tmp_path / "columns.parquet", "test")
    write(tmp_path / "size.parquet", [(32, 32), (16, 24)])
    with pytest.raises(DataError, match=r"image 1 is \(24, 16\), expected 32x32"):
        read_cifar10(tmp_path / "size.parquet", "test")
    cells = pa.table({"img": [{"bytes": b"no image", "path": ""}], "label": [0]})
    pq.write_table(cells, tmp_path / "pixels.parquet")
    with pytest.raises(DataError, match="image 0 cannot be decoded"):
        read_cifar10(tmp_path / "pixels.parquet", "test")
    with pytest.raises(DataError, match="no CIFAR-10 at"):
        read_cifar10(tmp_path / "nowhere", "test")
