"""Profiles and filters over gRPC and from the command line, with real servers."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from rootmodels.cost import network_cost
from rootmodels.parameters import load_network, random_network
from rootmodels.variants import VARIANTS, get_variant
from rootmodels.weights_info import PRETRAINED_DIR, weights_path
from rootserve.v1 import analysis_pb2 as pb
from rootserve.v1 import analysis_pb2_grpc
from tests.support.server_process import ServerProcess, running_server

MODEL = "nin-root-4"
FIXED_KEYS = {
    *("layer", "kind", "groups", "kernel", "in", "out"),
    *("height", "width", "params", "macs"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server("--device", "cpu", "--models", MODEL, "--max-batch-rows", "4") as made:
        yield made


@pytest.fixture(scope="module")
def fake() -> Iterator[ServerProcess]:
    with running_server("--engine", "fake", "--models", MODEL, "--analysis-max-jobs", "0") as made:
        yield made


def stub(server: ServerProcess) -> analysis_pb2_grpc.AnalysisServiceStub:
    return analysis_pb2_grpc.AnalysisServiceStub(server.channel)


def get_filters(
    server: ServerProcess, model: str, layer: str = ""
) -> tuple[pb.FiltersHeader, bytes]:
    first, *rest = stub(server).GetFilters(pb.GetFiltersRequest(model=model, layer=layer))
    content = b""
    for response in rest:
        assert response.chunk.offset == len(content)
        assert len(response.chunk.data) <= 2**20
        content += response.chunk.data
    assert len(content) == first.header.size
    return first.header, content


@pytest.mark.parametrize("name", VARIANTS)
def test_the_cost_of_every_layer_of_every_model(server: ServerProcess, name: str) -> None:
    response = stub(server).GetProfile(pb.GetProfileRequest(model=name))
    cost = network_cost(get_variant(name))
    assert response.model == name
    assert sum(layer.params for layer in response.layers) == cost.params
    for layer, expected in zip(response.layers, cost.layers, strict=True):
        assert (layer.name, layer.kind, layer.groups, layer.kernel, layer.stride) == (
            *(expected.layer.name, expected.layer.kind, expected.layer.groups),
            *(expected.layer.kernel, expected.layer.stride),
        )
        assert (layer.in_channels, layer.out_channels, layer.height, layer.width) == (
            *(expected.layer.in_channels, expected.layer.out_channels),
            *(expected.layer.size, expected.layer.size),
        )
        assert (layer.params, layer.macs) == (expected.params, expected.macs)
        assert not layer.HasField("time")
    assert not response.HasField("measurement")


@pytest.mark.parametrize("name", [MODEL, "nin-col-2"])
def test_times_of_a_model_that_is_served_and_of_one_that_is_not(
    server: ServerProcess, name: str
) -> None:
    response = stub(server).GetProfile(pb.GetProfileRequest(model=name, measure=True, rows=3))
    measured = response.measurement
    assert (measured.engine, measured.device) == ("openvino", "cpu")
    assert measured.precision in ("fp32", "bf16", "int8")
    assert (measured.rows, response.no_times_reason) == (3, "")
    assert measured.threads >= 1
    assert measured.runs >= 5
    assert measured.total.median_ns > 0
    for layer in response.layers:
        assert layer.computed_in or layer.HasField("time"), layer.name
        time = layer.time
        assert time.lower_quartile_ns <= time.median_ns <= time.upper_quartile_ns
        if layer.macs > 10**6:
            assert time.median_ns > 0


def test_an_engine_that_cannot_tell_says_so(fake: ServerProcess) -> None:
    response = stub(fake).GetProfile(pb.GetProfileRequest(model=MODEL, measure=True))
    assert response.no_times_reason == "engine fake cannot tell the time of a layer"
    assert not response.HasField("measurement")
    assert len(response.layers) == 12


def test_filters_are_the_weights_as_the_engines_have_them(server: ServerProcess) -> None:
    network = load_network(weights_path(MODEL, PRETRAINED_DIR), get_variant(MODEL))
    for layer in ("conv1a", "conv2a"):
        header, content = get_filters(server, MODEL, layer)
        weight = network.parameters[layer].weight
        np.testing.assert_array_equal(np.frombuffer(content, "<f4"), weight.ravel())
        assert (header.model, header.layer.name) == (MODEL, layer)
        assert len(header.weights_sha256) == 64
    assert get_filters(server, MODEL)[0].layer.name == "conv1a"


def test_the_largest_filters_come_in_pieces_by_torchvisions_name(server: ServerProcess) -> None:
    header, content = get_filters(server, "resnet50-orig", "layer4.1.conv2")
    assert (header.layer.name, header.weights_sha256) == ("res5b_branch2b", "")
    assert len(content) == 4 * 2_359_296
    network = random_network(get_variant("resnet50-orig"))
    expected = network.parameters["res5b_branch2b"].weight
    np.testing.assert_array_equal(np.frombuffer(content, "<f4"), expected.ravel())


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"model": "nope"}, "NOT_FOUND", ["no model is called 'nope'", "resnet50-root-64"]),
        ({"model": MODEL, "rows": 5}, "INVALID_ARGUMENT", ["rows: 5 came", "at most 4"]),
    ],
)
def test_bad_profile_requests(
    server: ServerProcess, fields: dict[str, object], code: str, words: list[str]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub(server).GetProfile(pb.GetProfileRequest(measure=True, **fields))
    assert caught.value.code().name == code
    for word in words:
        assert word in caught.value.details()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "nope"}, "no model is called 'nope'"),
        ({"model": MODEL, "layer": "pool1"}, f"{MODEL} has no convolution 'pool1'; it has conv1a"),
        ({"model": "resnet50-orig", "layer": "fc"}, "has no convolution 'fc'"),
    ],
)
def test_bad_filter_requests(server: ServerProcess, fields: dict[str, str], words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub(server).GetFilters(pb.GetFiltersRequest(**fields)))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert words in caught.value.details()


def test_filters_take_part_in_the_limit_of_analyses(fake: ServerProcess) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub(fake).GetFilters(pb.GetFiltersRequest(model=MODEL)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def rootserve(server: ServerProcess, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "rootserve.client",
        *map(str, arguments),
        "--server",
        server.address,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


def test_the_profile_command(server: ServerProcess, tmp_path: Path) -> None:
    done = rootserve(server, "analyze", "profile", "--model", MODEL, "--json", "--no-measure")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert all(set(row) >= FIXED_KEYS for row in rows)
    (conv2a,) = [row for row in rows if row["layer"] == "conv2a"]
    assert (conv2a["groups"], conv2a["params"], conv2a["time_s"]) == (4, 115_392, None)

    out = tmp_path / "out"
    done = rootserve(
        server, "analyze", "profile", "-m", MODEL, "--against", "nin-orig", "--out", out
    )
    assert done.returncode == 0, done.stderr
    assert "115 K" in done.stdout
    assert "461 K" in done.stdout
    assert re.search(r"one image, median of \d+ runs", done.stdout)
    rows = json.loads((out / "profile.json").read_text())
    (conv2a,) = [row for row in rows if row["layer"] == "conv2a"]
    assert (conv2a["against"]["model"], conv2a["against"]["params"]) == ("nin-orig", 460_992)
    assert conv2a["time_s"]["median"] > 0
    with Image.open(out / "profile.png") as picture:
        assert picture.width > 1000


def test_models_of_different_families_are_not_compared(server: ServerProcess) -> None:
    done = rootserve(
        server, "analyze", "profile", "-m", MODEL, "--against", "resnet50-orig", "--no-measure"
    )
    assert done.returncode == 2
    assert "expected models of one family" in done.stderr


def test_the_filters_command(server: ServerProcess, tmp_path: Path) -> None:
    done = rootserve(server, "analyze", "filters", "--model", MODEL, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "out" / "filters-conv1a.npy").shape == (192, 3, 5, 5)
    with Image.open(tmp_path / "out" / "filters-conv1a.png") as picture:
        assert picture.width > 300
    done = rootserve(
        server, "analyze", "filters", "-m", MODEL, "--layer", "pool2", "--out", tmp_path
    )
    assert done.returncode == 3
    assert "has no convolution 'pool2'" in done.stderr
