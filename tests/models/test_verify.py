import math
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from rootmodels.cifar10 import read_cifar10
from rootmodels.network import Network
from rootmodels.train_run import accuracy
from rootmodels.variants import get_variant
from rootmodels.verify import interval, main
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


def test_a_sample_is_told_with_its_interval(
    weights: Path, sample_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped sample has a tenth of the images that the shipped files were measured on."""
    path = weights_path(NAME, weights)
    model, info = load_weights(path)
    measured = accuracy(model.fold(), read_cifar10(sample_path, "test"), torch.device("cpu"))
    low, high = interval(measured, 1000)
    for recorded, status, verdict in (
        (high - 0.001, 0, "consistent"),
        (high + 0.01, 1, "NOT CONS"),
    ):
        rewrite(path, replace(info, accuracy=recorded))
        assert run(weights, sample_path) == status
        assert (
            f"recorded {recorded:.4f} (40 images)  measured {measured:.4f} "
            f"(99 % interval {low:.4f} to {high:.4f}, 1,000 images)  {verdict}"
        ) in capsys.readouterr().out


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_the_interval_is_wilsons(share: float) -> None:
    """What was seen lies 2.5758 standard deviations from each end, by that end's own deviation."""
    for end in interval(share, 50):
        deviation = math.sqrt(max(0.0, end * (1 - end)) / 50)
        assert abs(share - end) == pytest.approx(2.5758 * deviation, abs=1e-6)


def test_what_cannot_be_compared_is_an_error(
    weights: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(weights, data, "nin-orig") == 2
    assert "nin-orig.safetensors does not exist" in capsys.readouterr().err
    assert run(weights, data, "nin-root-3") == 2
    assert "no variant is called 'nin-root-3'" in capsys.readouterr().err
    assert run(weights / "nowhere", data) == 2
    assert "holds no weights of a known variant" in capsys.readouterr().err
    weights_path(NAME, weights).rename(weights_path("nin-orig", weights))
    assert run(weights, data) == 2
    assert "has weights of nin-root-16, expected nin-orig" in capsys.readouterr().err
