"""A family that a package adds, examples/vgg11, through the service: listed, computed, analysed, measured."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from rootmodels.cifar10 import read_cifar10
from rootmodels.layer import IMAGES
from rootmodels.network import Network
from rootmodels.variants import get_variant
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import WeightsInfo, weights_path
from tests.support.added_family import install, install_example, on_the_path
from tests.support.server_process import ServerProcess, running_server

NAMES = ("vgg11-orig", "vgg11-root-4")


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Weights of two variants, whose package every process finds."""
    folder = tmp_path_factory.mktemp("site")
    install_example(folder)
    with on_the_path(folder):
        for name in NAMES:
            torch.manual_seed(1)
            model = Network(get_variant(name))
            with torch.no_grad():  # statistics of normalisation that say something
                model.train()(torch.randint(0, 256, (32, 3, 32, 32)))
            info = WeightsInfo(name, 0.5, 1000, 1, 0, "", {})
            save_weights(weights_path(name, folder / "weights"), model, info)
        yield folder / "weights"


@pytest.fixture(scope="module", params=["openvino", "torch"])
def server(request: pytest.FixtureRequest, weights: Path) -> Iterator[ServerProcess]:
    arguments = ("--device", "cpu", "--engine", request.param, "--precision", "fp32")
    with running_server("--weights", str(weights), *arguments) as started:
        yield started


@pytest.fixture(scope="module")
def images(sample_path: Path) -> NDArray[np.uint8]:
    return read_cifar10(sample_path, "test").images[:24]


def client(server: ServerProcess, *arguments: object) -> str:
    command = [sys.executable, "-m", "rootserve.client", *map(str, arguments)]
    command += ["--server", server.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_engines_answer_as_the_module(
    server: ServerProcess, weights: Path, images: NDArray[np.uint8]
) -> None:
    for name in NAMES:
        model, _ = load_weights(weights_path(name, weights))
        with torch.inference_mode():
            expected = model(torch.from_numpy(images)).numpy()
        assert np.ptp(expected) > 0.1
        for rows in (1, 24):
            found = server.infer(name, images[:rows])
            np.testing.assert_allclose(found, expected[:rows], atol=1e-4)


def test_it_is_listed_and_profiled_with_its_cost(server: ServerProcess) -> None:
    models = {model["name"]: model for model in json.loads(client(server, "models", "--json"))}
    assert len(models) == 22 + 5 + 1, "the family as one model as well"
    orig, root = (models[name] for name in NAMES)
    assert (orig["family"], orig["topology"], orig["state"]) == ("vgg11", "orig", "ready")
    assert (orig["classes"][3], orig["paper"], root["accuracy"]) == ("cat", None, 0.5)
    layers = json.loads(client(server, "analyze", "profile", "-m", NAMES[1], "--json"))
    assert sum(layer["macs"] for layer in layers) == root["macs"]
    grouped = {layer["layer"]: layer["groups"] for layer in layers if layer["groups"] > 1}
    assert grouped == {"conv3_1": 4, "conv3_2": 4, "conv4_1": 2, "conv4_2": 2}


def test_the_covariance_between_its_layers(
    server: ServerProcess,
    weights: Path,
    images: NDArray[np.uint8],
    sample_path: Path,
    tmp_path: Path,
) -> None:
    pair = "conv4_1-mix4_1"
    client(
        server, "analyze", "covariance", "-m", NAMES[1], "--pairs", pair, "--data", sample_path,
        "--images", len(images), "--out", tmp_path,
    )  # fmt: skip
    model, _ = load_weights(weights_path(NAMES[1], weights))
    responses = {}
    with torch.inference_mode():
        values = {IMAGES: model.normalise(torch.from_numpy(images))}
        for layer in model.layers:
            x = model.linear(layer, values)
            values[layer.name] = functional.relu(x) if layer.relu else x
            if layer.name in pair.split("-"):
                by_pixel = values[layer.name].permute(1, 0, 2, 3).flatten(1)
                responses[layer.name] = by_pixel.double().numpy()
    first, second = (responses[name] for name in pair.split("-"))
    assert first.shape == (512, 24 * 16)
    both = np.cov(first, second)
    with np.load(tmp_path / "covariance.npz") as file:
        found = file[f"covariance/{pair}"]
        assert file[f"samples/{pair}"] == 24 * 16
    np.testing.assert_allclose(found, both[:512, 512:], atol=1e-4 * np.abs(both).max())
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert "2" in scores[pair]


def test_all_its_adjacent_layers_are_analysed_by_default(
    server: ServerProcess, sample_path: Path, tmp_path: Path
) -> None:
    client(
        server, "analyze", "covariance", "-m", NAMES[1], "--data", sample_path, "--images", 8, "--out",
        tmp_path, "--no-pictures",
    )  # fmt: skip
    convolutions = [
        layer.name for layer in Network(get_variant(NAMES[1])).layers if layer.kind == "conv"
    ]
    pairs = [f"{one}-{other}" for one, other in itertools.pairwise(convolutions)]
    assert list(json.loads((tmp_path / "scores.json").read_text())) == pairs


def test_its_table_is_measured(server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    client(server, "table8", "--family", "vgg11", "--rounds", 1, "--rows", 2, "--json", file)
    rows = {row["name"]: row for row in json.loads(file.read_text())}
    assert list(rows) == ["vgg11-orig", *(f"vgg11-root-{degree}" for degree in (2, 4, 8, 16))]
    assert rows[NAMES[1]]["flops_ratio"] == rows[NAMES[0]]["flops"] / rows[NAMES[1]]["flops"]
    assert rows[NAMES[1]]["cpu"]["rows"] == 2


def test_a_service_says_which_package_is_at_fault(tmp_path: Path) -> None:
    install(tmp_path, "their-nets", {"extra": "their_nets:family"}, "family = 3")
    command = [sys.executable, "-m", "rootserve.server", "--port", "0", "--metrics-port", "0"]
    with on_the_path(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "rootserve-server: error: their-nets 0.1.0, entry point 'extra = " in done.stderr
    assert "Traceback" not in done.stderr
