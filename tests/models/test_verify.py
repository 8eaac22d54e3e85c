from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from rootmodels.cifar10 import read_cifar10
from rootmodels.network import Network
from rootmodels.train_run import accuracy
from rootmodels.variants import get_variant
from rootmodels.verify import main
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import WeightsInfo, weights_path

NAME = "nin-root-16"


@pytest.fixture
def data(tmp_path: Path, sample_path: Path) -> Path:
    """A data set of 40 images."""
    path = tmp_path / "sample.parquet"
    pq.write_table(pq.read_table(sample_path).slice(0, 40), path)
    return path


@pytest.fixture
def weights(tmp_path: Path, data: Path) -> Path:
    """A folder with random weights and their true accuracy on ``data``."""
    torch.manual_seed(0)
    info = WeightsInfo(NAME, 0.5, 40, 1, 0, "", {})
    path = weights_path(NAME, tmp_path / "weights")
    save_weights(path, Network(get_variant(NAME)), info)
    model, info = load_weights(path)
    measured = accuracy(model.fold(), read_cifar10(data, "test"), torch.device("cpu"))
    rewrite(path, replace(info, accuracy=measured))
    return path.parent


def rewrite(path: Path, info: WeightsInfo) -> None:
    model, _ = load_weights(path)
    save_weights(path, model, info)


def run(weights: Path, data: Path, *more: str) -> int:
    return main([*more, "--weights", str(weights), "--data", str(data), "--device", "cpu"])


def test_true_metadata_pass(weights: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(weights, data) == 0
    assert "all 1 files are as accurate as their metadata says" in capsys.readouterr().out
    assert run(weights, data, NAME) == 0


def test_false_metadata_are_told(
    weights: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = weights_path(NAME, weights)
    _, info = load_weights(path)
    rewrite(path, replace(info, accuracy=info.accuracy + 0.025))
    assert run(weights, data) == 1
    out = capsys.readouterr().out
    assert "difference -0.0250  DIFFERS by more than 0.0005" in out
    assert "1 of 1 files are not as accurate as their metadata says" in out
    assert run(weights, data, "--tolerance", "0.03") == 0


def test_what_cannot_be_compared_is_an_error(
    weights: Path, data: Path, sample_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(weights, sample_path) == 2
    assert "measured on 40 images, the data set has 1000" in capsys.readouterr().err
    assert run(weights, data, "nin-orig") == 2
    assert "nin-orig.safetensors is not a readable" in capsys.readouterr().err
    assert run(weights, data, "nin-root-3") == 2
    assert "no variant is called 'nin-root-3'" in capsys.readouterr().err
    assert run(weights / "nowhere", data) == 2
    assert "holds no weights of a known variant" in capsys.readouterr().err
    weights_path(NAME, weights).rename(weights_path("nin-orig", weights))
    assert run(weights, data) == 2
    assert "has weights of nin-root-16, expected nin-orig" in capsys.readouterr().err
