"""Networks that files describe, through the service: listed, computed, analysed, loaded while it runs."""

import io
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2 as oip

from rootmodels.cifar10 import read_cifar10
from rootmodels.cost import network_cost
from rootmodels.layer import IMAGES
from rootmodels.model_file import open_weights
from rootmodels.network import Network
from rootmodels.torch_layers import activate
from rootmodels.weights import load_weights
from tests.support.model_files import CLASSES, all_kinds, model_of, simple_layers, write_small
from tests.support.server_process import ServerProcess, running_server

KINDS, ROOT = "any-net", "my-net-root-4"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three networks, of which two are of one family."""
    folder = tmp_path_factory.mktemp("weights")
    write_small(folder, model_of(KINDS, all_kinds()))
    wide = simple_layers()
    wide = (*wide[:2], replace(wide[2], groups=1), *wide[3:])
    write_small(folder, model_of("my-net", wide))
    write_small(folder, model_of(ROOT, family="my-net", topology="root", degree=4))
    return folder


@pytest.fixture(scope="module", params=["openvino", "torch"])
def server(request: pytest.FixtureRequest, weights: Path) -> Iterator[ServerProcess]:
    arguments = ("--device", "cpu", "--engine", request.param)
    with running_server("--weights", str(weights), *arguments) as started:
        yield started


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (24, 3, 32, 32), np.uint8)


@pytest.fixture(scope="module")
def sample(sample_path: Path) -> NDArray[np.uint8]:
    return read_cifar10(sample_path, "test").images[:16]


def module(weights: Path, name: str) -> Network:
    model, _ = load_weights(weights / f"{name}.safetensors")
    return model


def run(server: ServerProcess, *arguments: object) -> str:
    command = [sys.executable, "-m", "rootserve.client", *map(str, arguments)]
    command += ["--server", server.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tritons_client_gets_the_logits_of_the_module(
    server: ServerProcess, weights: Path, images: NDArray[np.uint8]
) -> None:
    with triton.InferenceServerClient(server.address) as client:
        for name in (KINDS, "my-net", ROOT):
            with torch.inference_mode():
                expected = module(weights, name)(torch.from_numpy(images)).numpy()
            assert np.ptp(expected) > 0.1
            for rows in (1, 24):
                sent = triton.InferInput("images", [rows, 3, 32, 32], "UINT8")
                sent.set_data_from_numpy(images[:rows])
                found = client.infer(name, [sent]).as_numpy("logits")
                np.testing.assert_allclose(found, expected[:rows], atol=1e-4)
        metadata = client.get_model_metadata(KINDS, as_json=True)
        assert metadata["outputs"][0]["shape"] == ["-1", str(len(CLASSES))]
        config = client.get_model_config(KINDS, as_json=True)["config"]
        assert config["input"][0]["dims"] == ["3", "32", "32"]
        assert config["parameters"]["accuracy"]["string_value"] == "0.75"
        index = {one.name: one.state for one in client.get_model_repository_index().models}
        assert [index[name] for name in (KINDS, "my-net", ROOT)] == ["READY"] * 3
        assert index["nin-orig"] == "UNAVAILABLE"
        statistics = client.get_inference_statistics(KINDS, as_json=True)["model_stats"][0]
        assert int(statistics["inference_count"]) >= 25


def test_it_is_listed_with_what_the_file_says(server: ServerProcess, weights: Path) -> None:
    models = {model["name"]: model for model in json.loads(run(server, "models", "--json"))}
    listed = models[ROOT]
    variant, _ = open_weights(weights / f"{ROOT}.safetensors")
    cost = network_cost(variant)
    assert (listed["params"], listed["macs"]) == (cost.params, cost.macs)
    assert (listed["family"], listed["topology"], listed["state"]) == ("my-net", "root", "ready")
    assert (listed["accuracy"], listed["image_size"]) == (0.75, 32)
    assert tuple(listed["classes"]) == CLASSES
    page = urllib.request.urlopen(f"http://{server.metrics_address}/metrics").read().decode()
    assert f'rootserve_model_macs{{model="{ROOT}"}} {float(cost.macs)}' in page
    assert f'model="{ROOT}",' in page
    assert 'variant="root-4"' in page


def test_pictures_are_cropped_as_the_file_says(
    server: ServerProcess, weights: Path, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    """Of a picture's 36 pixels those in the middle are seen: 32 / (7/8) = 36."""
    frame = np.zeros((36, 36, 3), np.uint8)
    frame[2:34, 2:34] = images[0].transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    request = oip.ModelInferRequest(model_name=KINDS)
    request.inputs.add(name="encoded", datatype="BYTES", shape=[1, 1])
    content = file.getvalue()
    request.raw_input_contents.append(len(content).to_bytes(4, "little") + content)
    answer = server.stub.ModelInfer(request, timeout=30)
    found = np.frombuffer(answer.raw_output_contents[0], np.float32)
    with torch.inference_mode():
        expected = module(weights, KINDS)(torch.from_numpy(images[:1])).numpy()[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    (tmp_path / "photo.png").write_bytes(content)
    told = run(server, "infer", tmp_path / "photo.png", "--model", KINDS)
    assert CLASSES[int(expected.argmax())] in told


def test_load_is_measured(server: ServerProcess, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run(server, "load", "-m", ROOT, "-c", 2, "--duration", 1, "--warmup", 0.2, "--json", report)
    assert ROOT in report.read_text()


def test_the_covariance_between_its_layers(
    server: ServerProcess,
    weights: Path,
    sample_path: Path,
    sample: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    pair = ("features.conv1", "features.conv2")
    run(
        server, "analyze", "covariance", "-m", ROOT, "--data", sample_path, "--images", len(sample),
        "--out", tmp_path, "--no-pictures",
    )  # fmt: skip
    network = module(weights, ROOT)
    values = {IMAGES: network.normalise(torch.from_numpy(sample))}
    with torch.inference_mode():
        for layer in network.layers:
            values[layer.name] = activate(layer, network.linear(layer, values))
        pooled = values["pool"].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert pooled.shape == values[pair[0]].shape
    first = values[pair[0]].permute(1, 0, 2, 3).flatten(1).double().numpy()
    second = values[pair[1]].repeat_interleave(2, 2).repeat_interleave(2, 3)
    both = np.cov(first, second.permute(1, 0, 2, 3).flatten(1).double().numpy())
    with np.load(tmp_path / "covariance.npz") as file:
        found = file[f"covariance/{'-'.join(pair)}"]
    np.testing.assert_allclose(found, both[:16, 16:], atol=1e-4 * np.abs(both).max())


def test_a_network_of_every_kind_is_analysed_and_profiled(
    server: ServerProcess, sample_path: Path, tmp_path: Path
) -> None:
    run(
        server, "analyze", "covariance", "-m", KINDS, "--data", sample_path, "--images", 8,
        "--out", tmp_path, "--no-pictures",
    )  # fmt: skip
    with np.load(tmp_path / "covariance.npz") as file:
        assert "covariance/stem-wide" in file
    told = run(server, "analyze", "profile", "-m", KINDS, "--measure", "--json")
    layers = json.loads(told)
    assert [layer["layer"] for layer in layers] == [layer.name for layer in all_kinds()]


def test_filters_are_those_of_the_file(
    server: ServerProcess, weights: Path, tmp_path: Path
) -> None:
    run(server, "analyze", "filters", "-m", ROOT, "--layer", "features.conv2", "--out", tmp_path)
    assert list(tmp_path.iterdir())


def test_a_table_of_the_original_and_its_variants(server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    run(server, "table8", "--family", "my-net", "--rounds", 1, "--rows", 2, "--json", file)
    rows = {row["name"]: row for row in json.loads(file.read_text())}
    assert list(rows) == ["my-net", ROOT]
    assert rows[ROOT]["flops_ratio"] == rows["my-net"]["flops"] / rows[ROOT]["flops"] > 1
