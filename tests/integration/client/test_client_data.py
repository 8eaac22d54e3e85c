"""`rootserve data`: what is there stays, what is not is fetched, and what cannot be is said."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Rootserve = Callable[..., tuple[int, str, str]]


def write(path: Path, rows: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = pa.array([{"bytes": b"x", "path": None}] * rows)
    pq.write_table(pa.table({"img": cells, "label": pa.array([0] * rows, pa.int64())}), path)


def hub(monkeypatch: pytest.MonkeyPatch, rows: dict[str, int]) -> list[tuple[Any, ...]]:
    """The hub has files with so many rows; gives what it was asked for."""
    asked: list[tuple[Any, ...]] = []

    def fetch(repository: str, file: str, *, repo_type: str, local_dir: Path) -> str:
        asked.append((repository, file, repo_type))
        write(local_dir / file, rows[file])
        return str(local_dir / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    return asked


TRAIN, TEST = (f"plain_text/{split}-00000-of-00001.parquet" for split in ("train", "test"))


def test_it_is_fetched_once(
    rootserve: Rootserve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = hub(monkeypatch, {TRAIN: 50_000, TEST: 10_000})
    code, out, _ = rootserve("data", "cifar10", "--out", tmp_path / "c10")
    assert code == 0
    assert "train: 50,000 images in" in out
    assert "test: 10,000 images in" in out
    assert asked == [("uoft-cs/cifar10", file, "dataset") for file in (TRAIN, TEST)]
    assert rootserve("data", "cifar10", "--out", tmp_path / "c10")[0] == 0
    assert len(asked) == 2


def test_something_else_is_not_taken_for_it(
    rootserve: Rootserve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub(monkeypatch, {TEST: 9_999})
    write(tmp_path / TRAIN, 50_000)
    code, _, err = rootserve("data", "cifar10", "--out", tmp_path)
    assert code == 2
    assert "test has 9,999 images; expected 10,000 of cifar10" in err


def test_an_unknown_data_set(rootserve: Rootserve, tmp_path: Path) -> None:
    code, _, err = rootserve("data", "imagenet", "--out", tmp_path)
    assert (code, err) == (2, "rootserve: data set 'imagenet': expected cifar10\n")


def test_without_the_library_it_says_what_to_bring(
    rootserve: Rootserve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, err = rootserve("data", "cifar10", "--out", tmp_path)
    assert code == 2
    for word in ("pip install 'rootserve[data]'", TRAIN, "uoft-cs/cifar10", str(tmp_path)):
        assert word in err


def test_without_a_network_it_says_what_to_bring(tmp_path: Path) -> None:
    """The real library, told that there is none."""
    done = subprocess.run(
        [sys.executable, "-m", "rootserve.client", "data", "cifar10", "--out", str(tmp_path)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith(f"rootserve: {TRAIN} cannot be fetched (")
    assert "uoft-cs/cifar10 from the Hugging Face hub by other means" in error
