"""Model files that come, change or are broken while the service runs."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tritonclient.grpc import service_pb2 as oip

from rootmodels.model_content import write_content
from rootmodels.model_file import MODEL_KEY, read_model
from rootmodels.weights import load_weights
from tests.support.model_files import all_kinds, model_of, simple_layers, write_small
from tests.support.server_process import ServerProcess, running_server

IMAGES = np.random.default_rng(3).integers(0, 256, (3, 3, 32, 32), np.uint8)
OLD, NEW = "old-net", "new-net"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    write_small(tmp_path, model_of(OLD))
    return tmp_path


@pytest.fixture
def server(weights: Path) -> Iterator[ServerProcess]:
    arguments = ("--device", "cpu", "--engine", "openvino", "--cpu-workers", "2")
    control = ("--model-control", "explicit", "--weights", str(weights))
    with running_server(*arguments, *control) as started:
        yield started


def load(server: ServerProcess, name: str) -> None:
    server.stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name=name), timeout=60)


def refused(server: ServerProcess, name: str) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        load(server, name)
    return caught.value.code(), caught.value.details()


def states(server: ServerProcess) -> dict[str, str]:
    index = server.stub.RepositoryIndex(oip.RepositoryIndexRequest())
    return {model.name: model.state for model in index.models}


def expected(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    model, _ = load_weights(path)
    with torch.inference_mode():
        return model.fold()(torch.from_numpy(IMAGES)).numpy()


def test_a_new_file_is_served_without_a_restart_and_swapped_for_another(
    server: ServerProcess, weights: Path
) -> None:
    workers = server.worker_pids()
    assert NEW not in states(server)
    code, details = refused(server, NEW)
    assert code is grpc.StatusCode.NOT_FOUND
    assert f"no model is called '{NEW}', and {weights} has no file of it; known:" in details

    path = write_small(weights, model_of(NEW, all_kinds()))
    load(server, NEW)
    assert states(server)[NEW] == "READY"
    first = expected(path)
    np.testing.assert_allclose(server.infer(NEW, IMAGES), first, atol=1e-4)

    # Another network of another graph, under the same name, for the same images and classes.
    write_small(weights, model_of(NEW, simple_layers()), seed=5)
    np.testing.assert_allclose(server.infer(NEW, IMAGES), first, atol=1e-4)
    load(server, NEW)
    np.testing.assert_allclose(server.infer(NEW, IMAGES), expected(path), atol=1e-4)
    assert np.abs(expected(path) - first).max() > 0.1

    server.stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name=NEW))
    assert states(server)[NEW] == "UNAVAILABLE"
    path.unlink()
    code, details = refused(server, NEW)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"{path} cannot be read: No such file or directory" in details
    assert server.worker_pids() == workers


def test_broken_files_are_refused_and_the_workers_go_on(
    server: ServerProcess, weights: Path, tmp_path: Path
) -> None:
    workers = server.worker_pids()
    before = server.infer(OLD, IMAGES)
    elsewhere = tmp_path / "elsewhere"
    sound = write_small(elsewhere, model_of(NEW))
    content, tensors = write_content(read_model(sound)), dict(load_file(sound))
    path = weights / sound.name

    def put(text: str) -> None:
        save_file(tensors, path, {MODEL_KEY: text})

    for change, words in (
        (lambda: path.write_bytes(b""), "is not a readable safetensors file"),
        (lambda: path.write_bytes(sound.read_bytes()[:-9]), "is not a readable safetensors file"),
        (lambda: put("{}"), "format is None, expected 1"),
        (lambda: put(content.replace('"max_pool"', '"exec"')), "kind is 'exec', expected one of"),
        (lambda: put(content.replace(NEW, "../x")), "name is '../x', expected up to 100"),
        (lambda: put(content.replace(NEW, OLD)), f"holds weights of {OLD}, not of {NEW}"),
        (lambda: put(content.replace('"size": 16', '"size": 15')), "has size 15, expected 16"),
        (lambda: save_file(tensors, path), "no usable 'rootserve' metadata"),
    ):
        change()
        code, details = refused(server, NEW)
        assert code is grpc.StatusCode.FAILED_PRECONDITION, details
        assert f"model {NEW} was not loaded, nothing has changed" in details
        assert words in details
        assert NEW not in states(server)

    # Only a worker reads the values.
    tensors["graph.linear.weight"] = np.full_like(tensors["graph.linear.weight"], np.nan)
    put(content)
    code, details = refused(server, NEW)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "tensor graph.linear.weight has values that are not finite" in details
    np.testing.assert_array_equal(server.infer(OLD, IMAGES), before)
    assert states(server)[NEW] == "UNAVAILABLE"

    shutil.copy(sound, path)
    load(server, NEW)
    np.testing.assert_allclose(server.infer(NEW, IMAGES), expected(path), atol=1e-4)
    assert server.worker_pids() == workers


def test_names_are_no_paths(server: ServerProcess, weights: Path) -> None:
    write_small(weights / "deeper", model_of(NEW))
    for name in (f"deeper/{NEW}", f"../{weights.name}/{OLD}", f"{weights}/{OLD}", "", "."):
        code, details = refused(server, name)
        assert code is grpc.StatusCode.NOT_FOUND, details


def test_other_images_are_not_swapped_in(server: ServerProcess, weights: Path) -> None:
    layers = simple_layers(classes=3)
    write_small(weights, model_of(OLD, layers, classes=("x", "y", "z")))
    code, details = refused(server, OLD)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "its weights are for 32x32 images and 3 classes, those that are served for 32" in details


@pytest.mark.parametrize("engine", ["openvino", "torch", "fake"])
def test_a_worker_that_cannot_load_one_serves_the_others(weights: Path, engine: str) -> None:
    path = write_small(weights, model_of(NEW))
    tensors = dict(load_file(path))
    tensors["graph.linear.bias"] = np.full_like(tensors["graph.linear.bias"], np.inf)
    save_file(tensors, path, {MODEL_KEY: write_content(read_model(path))})
    arguments = ("--device", "cpu", "--engine", engine, "--weights", str(weights))
    with ServerProcess(*arguments, "--models", OLD) as server:
        server.wait_ready()
        assert server.infer(OLD, IMAGES).shape == (3, 7)
    if engine == "fake":
        return  # it reads no values
    with ServerProcess(*arguments) as server:
        request = oip.ModelReadyRequest(name=OLD)
        while not server.stub.ModelReady(request, timeout=60).ready:
            assert server.process.poll() is None
        workers = server.worker_pids()
        assert server.infer(OLD, IMAGES).shape == (3, 7)
        index = server.stub.RepositoryIndex(oip.RepositoryIndexRequest())
        reasons = {model.name: model.reason for model in index.models}
        assert "tensor graph.linear.bias has values that are not finite" in reasons[NEW]
        assert server.worker_pids() == workers
        assert "Traceback" not in server.log()


def test_a_service_does_not_start_with_a_broken_file(weights: Path) -> None:
    model = model_of(NEW)
    path = write_small(weights, model)
    content = write_content(replace(model, crop=model.crop * 2))
    save_file(load_file(path), path, {MODEL_KEY: content})
    command = [sys.executable, "-m", "rootserve.server", "--port", "0", "--metrics-port", "0"]
    command += ["--weights", str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}: crop is [7, 4], expected two whole numbers" in done.stderr
    assert "Traceback" not in done.stderr
