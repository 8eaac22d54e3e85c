"""`rootserve table8` against a real server: the paper's own figures, and what was measured beside them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server_process import running_server

# FLOPS, parameters and CPU ms of orig over that of the variant, from the paper's Table 8.
PAPER = {
    "nin-orig": (222_487_946, 966_986, 1.0),
    "nin-root-16": (93_316_490, 244_682, 39.0 / 23.0),
    "nin-tree-4": (115_434_890, 331_082, 39.0 / 29.1),
    "nin-col-8": (100_689_290, 273_482, 39.0 / 23.0),
}

ROOT = Path(__file__).parents[2]


def test_the_table_of_a_real_server(tmp_path: Path, sample_path: Path) -> None:
    file, picture = tmp_path / "table8.json", tmp_path / "table8.png"
    # The fake engine computes at once, and says class 9 of every image.
    served = "nin-orig,nin-root-16,nin-tree-4"
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("nin-orig", "nin-root-16"):
        shutil.copy(ROOT / f"rootmodels/pretrained/{name}.safetensors", weights)
    with running_server(
        "--models", served, "--weights", str(weights), "--engine", "fake", "--max-batch-rows", "128"
    ) as server:
        result = subprocess.run(
            [
                sys.executable, "-m", "rootserve.client", "table8", "--rounds", "2", "--data", sample_path,
                "--json", file, "--figure", picture, "--server", server.address,
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(file.read_text())}
    assert len(rows) == 14
    orig = rows["nin-orig"]
    for name, (flops, params, speedup) in PAPER.items():
        row = rows[name]
        assert (row["flops"], row["params"]) == (flops, params)
        assert row["flops_ratio"] == pytest.approx(222_487_946 / flops)
        assert row["paper"]["cpu_speedup"] == pytest.approx(speedup)
        assert row["gpu_ms"] is None
        if name in served:
            pairs = zip(orig["cpu"]["rounds_ms"], row["cpu"]["rounds_ms"], strict=True)
            ratios = [theirs / mine for theirs, mine in pairs]
            assert row["speedup"] == pytest.approx(sum(ratios) / 2)
            assert (row["cpu"]["rows"], row["cpu"]["engine"]) == (128, "fake")
    assert (orig["accuracy"], rows["nin-root-16"]["accuracy"]) == (0.1, 0.1)
    assert rows["nin-tree-4"]["note"] == "random weights: no accuracy"
    assert rows["nin-tree-4"]["accuracy"] is None
    assert rows["nin-col-8"]["note"] == "untrained and not served"
    assert picture.stat().st_size > 10_000


def test_the_table_of_the_other_family(tmp_path: Path) -> None:
    file, page = tmp_path / "table.json", tmp_path / "table.md"
    served = "nin-orig,resnet50-orig,resnet50-root-16,resnet50-v1.5"
    with running_server("--models", served, "--engine", "fake") as server:
        result = subprocess.run(
            [
                sys.executable, "-m", "rootserve.client", "table8", "--family", "resnet50", "--rounds", "1",
                "--json", file, "--markdown", page, "--server", server.address,
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(file.read_text())}
    assert len(rows) == 8
    root = rows["resnet50-root-16"]
    assert (root["params"], root["flops"]) == (18_690_984, 2_434_580_480 + 1064)
    assert root["flops_ratio"] == pytest.approx(3_857_974_312 / 2_434_581_544)
    assert root["paper"]["cpu_speedup"] == pytest.approx(621.0 / 478.8)
    assert root["paper"]["top5_accuracy"] == 0.9176
    assert (root["cpu"]["rows"], root["accuracy"]) == (10, None)
    assert root["note"] == "random weights: no accuracy"
    assert rows["resnet50-v1.5"]["paper"]["accuracy"] is None
    assert rows["resnet50-v1.5"]["cpu_ms"] > 0
    assert "nin-orig" not in page.read_text()
