"""Analyses in shards, one process doing what a cluster would."""

import io
import os
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rootmodels.analysis.capture import Capture
from rootmodels.analysis.derived import Kind
from rootmodels.analysis.errors import AnalysisError
from rootmodels.distributed.analysis import Analysis, Progress, Request, Result
from rootmodels.distributed.errors import ClusterError
from rootmodels.distributed.partial_sums import Folder
from rootmodels.distributed.shards import Frame, Source, find_sources, look_at, read
from rootmodels.distributed.tasks import Here
from rootmodels.model_file import open_weights
from rootmodels.network import Network
from rootmodels.parameters import load_network
from rootmodels.parquet_images import ParquetImages
from rootmodels.weights_info import WeightsError, weights_path
from rootserve.pictures import DataError

MODEL = "nin-root-16"
PAIRS = (("conv3b", "conv3c"),)
FRAME = Frame(32, 32)


class Watched(Here):
    """Knows what it was asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def add(self, key: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        self.asked.append(function.__name__)
        super().add(key, function, *arguments)


class Silent:
    def __init__(self) -> None:
        self.last: Progress | None = None

    def planned(self, plan: object) -> None:
        pass

    def progress(self, progress: Progress) -> None:
        self.last = progress


def analyse(
    data: Path | str,
    folder: Path,
    *,
    resume: bool = False,
    tasks: Here | None = None,
    rows: int = 8,
) -> Result:
    request = Request(MODEL, str(data), pairs=PAIRS, shard_images=rows)
    analysis = Analysis(request, folder, resume=resume)
    return analysis.run(tasks or Here(), Silent(), {Kind.COVARIANCE})


@pytest.fixture
def images(tmp_path: Path, sample_path: Path) -> Path:
    """A folder with two files of 20 and 12 images."""
    folder = tmp_path / "images"
    folder.mkdir()
    table = pq.read_table(sample_path)
    pq.write_table(table.slice(0, 20), folder / "a.parquet", row_group_size=5)
    pq.write_table(table.slice(20, 12), folder / "b.parquet")
    return folder


def test_the_sums_are_those_of_all_images(images: Path, tmp_path: Path, sample_path: Path) -> None:
    result = analyse(images, tmp_path / "sums")
    path = weights_path(MODEL)
    module = Network.from_folded(load_network(path, open_weights(path)[0]))
    capture = Capture(module, result.sums.plan)
    capture.add(ParquetImages(sample_path).read(0, 32))
    whole = capture.sums()
    assert result.sums.images == whole.images == 32
    for name, moments in whole.layers.items():
        scale = np.abs(moments.scatter).max()
        assert np.abs(result.sums.layers[name].scatter - moments.scatter).max() < 1e-6 * scale
    assert result.left_out == ()


def test_neither_names_nor_order_of_files_change_a_bit(images: Path, tmp_path: Path) -> None:
    first = analyse(images, tmp_path / "sums")
    (images / "a.parquet").rename(images / "z.parquet")
    second = analyse(images / "*.parquet", tmp_path / "others")
    assert first.sums.to_bytes() == second.sums.to_bytes()


def test_images_that_come_twice_count_twice_and_are_computed_once(
    images: Path, tmp_path: Path
) -> None:
    (images / "c.parquet").write_bytes((images / "b.parquet").read_bytes())
    tasks = Watched()
    result = analyse(images, tmp_path / "sums", tasks=tasks)
    assert result.sums.images == 20 + 2 * 12
    assert tasks.asked.count("sum_shard") == 3 + 2


def test_what_is_broken_is_named_and_added_once_it_is_repaired(
    images: Path, tmp_path: Path
) -> None:
    whole = analyse(images, tmp_path / "whole")
    good = (images / "b.parquet").read_bytes()
    rows = pq.read_table(images / "a.parquet").to_pylist()
    content = rows[10]["img"]["bytes"]
    rows[10]["img"]["bytes"] = b"no picture"
    pq.write_table(pq.read_table(images / "a.parquet").from_pylist(rows), images / "a.parquet")
    (images / "b.parquet").write_bytes(good[:200])
    folder = tmp_path / "sums"
    part = analyse(images, folder)
    assert part.sums.images == 8 + 4
    assert [each.images for each in part.left_out] == [8, None]
    assert "a.parquet: image 10 " in part.left_out[0].why
    assert "b.parquet" in part.left_out[1].name
    rows[10]["img"]["bytes"] = content
    pq.write_table(pq.read_table(images / "a.parquet").from_pylist(rows), images / "a.parquet")
    (images / "b.parquet").write_bytes(good)
    tasks = Watched()
    repaired = analyse(images, folder, resume=True, tasks=tasks)
    assert repaired.sums.to_bytes() == whole.sums.to_bytes()
    assert repaired.taken_over == 8 + 4
    assert tasks.asked.count("sum_shard") == 3


def test_what_an_earlier_analysis_left_is_used_only_if_that_is_said(
    images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sums"
    analyse(images, folder)
    with pytest.raises(ClusterError, match=r"sums of 5 shards.*expected --resume"):
        analyse(images, folder)
    tasks = Watched()
    assert analyse(images, folder, resume=True, tasks=tasks).taken_over == 32
    assert "sum_shard" not in tasks.asked


def test_partial_sums_that_are_damaged_are_computed_again(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sums"
    first = analyse(images, folder)
    one, other = sorted(folder.iterdir())[:2]
    one.write_bytes(one.read_bytes()[:-1])
    content = bytearray(other.read_bytes())
    content[100] ^= 1
    other.write_bytes(content)
    tasks = Watched()
    second = analyse(images, folder, resume=True, tasks=tasks)
    assert tasks.asked.count("sum_shard") == 2
    assert second.sums.to_bytes() == first.sums.to_bytes()


def test_nothing_is_left_of_a_process_that_was_killed_as_it_wrote(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sums"
    plan = analyse(images, folder).sums.plan

    def dies(_file: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", dies)
    with pytest.raises(KeyboardInterrupt):
        Folder(folder, plan).write("0" * 64, b"half")
    assert len(list(folder.iterdir())) == len(Folder(folder, plan).keys()) + 1
    Folder(folder, plan).clear()
    assert not folder.exists()


def test_sums_of_other_weights_are_not_taken(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sums"
    analyse(images, folder)
    analysis = Analysis(
        Request("nin-root-8", str(images), pairs=PAIRS, shard_images=8), folder, resume=True
    )
    assert analysis.run(Here(), Silent(), ()).taken_over == 0


def test_a_tree_gives_the_same_whatever_the_order(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sums"
    plan = analyse(images, folder, rows=4).sums.plan
    kept = Folder(folder, plan)
    keys = sorted(kept.keys())
    assert len(keys) == 8
    for count in (1, 2, 3, 5, 7, 8):
        some = keys[:count]
        assert kept.merged(some).to_bytes() == kept.merged(reversed(some)).to_bytes()


def test_pictures_in_a_folder_are_shards_of_some(tmp_path: Path, sample_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = ParquetImages(sample_path).read(0, 7)
    for number, image in enumerate(pixels):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    result = analyse(folder, tmp_path / "sums", rows=3)
    assert result.sums.images == 7
    # One that goes away between two looks takes its shard along, and nothing more.
    (folder / "4.png").write_bytes(b"")
    damaged = analyse(folder, tmp_path / "others", rows=3)
    assert damaged.sums.images == 4
    assert "4.png" in damaged.left_out[0].why


def test_a_shard_that_changes_meanwhile_is_not_taken_for_what_it_was(images: Path) -> None:
    shard = look_at(Source((str(images / "b.parquet"),)), 8)[1]
    whole = list(read(shard, FRAME, 3))
    assert [len(part) for part in whole] == [3, 1]
    pq.write_table(pq.read_table(images / "a.parquet"), images / "b.parquet")
    with pytest.raises(DataError, match="images 8 to 11: was changed"):
        list(read(shard, FRAME, 3))


def test_images_of_another_size_are_named(tmp_path: Path, images: Path) -> None:
    rows = pq.read_table(images / "b.parquet").to_pylist()
    buffer = io.BytesIO()
    Image.new("RGB", (40, 32)).save(buffer, "PNG")
    rows[3]["img"]["bytes"] = buffer.getvalue()
    pq.write_table(pq.read_table(images / "b.parquet").from_pylist(rows), images / "b.parquet")
    result = analyse(images, tmp_path / "sums")
    assert "b.parquet: image 3 is 40x32, expected 32x32" in result.left_out[0].why


def test_what_makes_no_sense_is_refused_before_anything_is_computed(
    images: Path, tmp_path: Path
) -> None:
    def refused(request: Request) -> None:
        Analysis(request, tmp_path / "sums", resume=False)

    with pytest.raises(DataError, match="no such images; expected parquet files or pictures"):
        find_sources(str(tmp_path / "nothing*"), 16)
    with pytest.raises(WeightsError, match=r"vgg: .*vgg.safetensors is not there"):
        refused(Request("vgg", str(images)))
    with pytest.raises(AnalysisError, match="no layer is called 'conv9'"):
        refused(Request(MODEL, str(images), pairs=(("conv9", "conv1a"),)))
    with pytest.raises(AnalysisError, match="tolerance 1 came"):
        refused(Request(MODEL, str(images), tolerance=1.0))
    for file in images.iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(ClusterError, match=r"none of 2 files or shards could be used.*a\.parquet"):
        analyse(images, tmp_path / "sums")


def test_progress_tells_what_is_left() -> None:
    def told() -> Iterator[float | None]:
        yield Progress(0, 100, counted=False, images_per_s=10).remaining_s
        yield Progress(0, 100, counted=True, images_per_s=0).remaining_s
        yield Progress(40, 100, counted=True, images_per_s=10).remaining_s

    assert list(told()) == [None, None, 6.0]
