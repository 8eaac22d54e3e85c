"""Loading and unloading while the service runs: nothing fails, and what cannot be loaded changes nothing."""

import asyncio
import os
import re
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from rootmodels.network import Network
from rootmodels.variants import get_variant
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import WeightsInfo, file_sha256, weights_path
from rootserve.v1 import catalog_pb2, catalog_pb2_grpc
from tests.support.server_process import (
    ServerProcess,
    infer_request,
    logits,
    plain_images,
    running_server,
    suspend,
    wait_until,
)

MODEL = "nin-root-16"
IMAGES = plain_images(2, 90)
FAKE = ("--models", MODEL, "--device", "cpu", "--engine", "fake", "--model-control", "explicit")
LOAD = oip.RepositoryModelLoadRequest(model_name=MODEL)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    shutil.copy(weights_path(MODEL), tmp_path)
    return tmp_path


@pytest.fixture
def server(weights: Path) -> Iterator[ServerProcess]:
    arguments = ("--device", "cpu", "--engine", "torch", "--cpu-workers", "2")
    control = ("--model-control", "explicit", "--weights", str(weights))
    with running_server(*arguments, *control, "--untrained", "any") as started:
        yield started


def write_new_weights(weights: Path) -> None:
    """Weights of the same variant that give other logits."""
    torch.manual_seed(5)
    model = Network(get_variant(MODEL))
    info = WeightsInfo(MODEL, 0.1, 10_000, 1, 5, "0" * 64, {})
    save_weights(weights_path(MODEL, weights), model, info)


def expected(weights: Path) -> NDArray[np.float32]:
    model, _ = load_weights(weights_path(MODEL, weights))
    with torch.inference_mode():
        return model.fold()(torch.from_numpy(IMAGES)).numpy()


def metrics_page(server: ServerProcess) -> str:
    page: bytes = urllib.request.urlopen(f"http://{server.metrics_address}/metrics").read()
    return page.decode()


def load(server: ServerProcess, name: str = MODEL, **parameters: bool) -> None:
    request = oip.RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        request.parameters[key].bool_param = value
    server.stub.RepositoryModelLoad(request, timeout=60)


def unload(server: ServerProcess, name: str = MODEL) -> None:
    server.stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name=name), timeout=60)


async def test_new_weights_are_swapped_in_under_load_and_no_request_fails(
    server: ServerProcess, weights: Path
) -> None:
    await swap_under_load(server, weights, callers=4)


async def test_new_weights_are_swapped_in_while_batches_are_computed_side_by_side(
    weights: Path,
) -> None:
    arguments = ("--device", "cpu", "--engine", "openvino", "--precision", "fp32", "--threads", "2")
    control = ("--model-control", "explicit", "--weights", str(weights))
    with running_server(*arguments, *control, "--optimize-for", "adaptive") as server:
        await swap_under_load(server, weights, callers=12)
        (beside,) = re.findall(r"rootserve_batches_beside_total\{.*\} (\S+)", metrics_page(server))
        assert float(beside) > 0


async def swap_under_load(server: ServerProcess, weights: Path, callers: int) -> None:
    old = expected(weights)
    write_new_weights(weights)
    new = expected(weights)
    assert np.abs(new - old).max() > 0.1
    done = asyncio.Event()
    seen = {"old": 0, "new": 0}
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        async def caller() -> None:
            while not done.is_set():
                answer = logits(await stub.ModelInfer(infer_request(MODEL, IMAGES), timeout=30))
                is_old = np.allclose(answer, old, atol=1e-3)
                assert is_old or np.allclose(answer, new, atol=1e-3)
                seen["old" if is_old else "new"] += 1

        calls = [asyncio.ensure_future(caller()) for _ in range(callers)]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(load, server)
        after = logits(await stub.ModelInfer(infer_request(MODEL, IMAGES), timeout=30))
        np.testing.assert_allclose(after, new, atol=1e-4)
        await asyncio.sleep(0.3)
        done.set()
        await asyncio.gather(*calls)
    assert seen["old"] > 0
    assert seen["new"] > 0


def test_which_weights_are_live_is_told_everywhere(server: ServerProcess, weights: Path) -> None:
    first = file_sha256(weights_path(MODEL, weights))
    assert told_weights(server) == {(first, 1)}
    write_new_weights(weights)
    second = file_sha256(weights_path(MODEL, weights))
    assert told_weights(server) == {(first, 1)}, "before it is loaded, nothing has changed"
    load(server)
    assert told_weights(server) == {(second, 2)}
    (line,) = [line for line in server.log().splitlines() if f"model {MODEL} was loaded" in line]
    assert f"weights={second[:12]}" in line
    assert "generation=2" in line


def told_weights(server: ServerProcess) -> set[tuple[str, int]]:
    """Hash and generation as the catalogue, the configuration, the metrics and an answer tell them."""
    stub = catalog_pb2_grpc.CatalogServiceStub(server.channel)
    models = stub.ListModels(catalog_pb2.ListModelsRequest(), timeout=30).models
    (model,) = [model for model in models if model.name == MODEL]
    request = oip.ModelConfigRequest(name=MODEL)
    config = server.stub.ModelConfig(request, timeout=30).config.parameters
    answer = server.stub.ModelInfer(infer_request(MODEL, IMAGES), timeout=30).parameters
    page = metrics_page(server)
    (weights,) = re.findall(rf'model_weights_info\{{model="{MODEL}".*?weights="(\w+)"', page)
    (generation,) = re.findall(rf'rootserve_model_generation\{{model="{MODEL}"\}} ([\d.]+)', page)
    sha256 = model.weights_sha256
    assert {weights, answer["weights"].string_param} == {sha256[:12]}
    return {
        (sha256, model.generation),
        (config["weights_sha256"].string_value, int(config["generation"].string_value)),
        (sha256, answer["generation"].int64_param),
        (sha256, int(float(generation))),
    }


@pytest.mark.parametrize("spoiled", ["bytes", "variant", "tensors"])
def test_weights_that_cannot_be_loaded_are_refused_and_the_old_ones_serve_on(
    server: ServerProcess, weights: Path, spoiled: str
) -> None:
    before = server.infer(MODEL, IMAGES)
    path = weights_path(MODEL, weights)
    content = path.read_bytes()
    match spoiled:
        case "bytes":
            path.write_bytes(b"no weights")
        case "variant":
            shutil.copy(weights_path("nin-orig"), path)
        case "tensors":
            path.write_bytes(content[:-1000])
    with pytest.raises(grpc.RpcError) as caught:
        load(server)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert f"model {MODEL} was not loaded, nothing has changed" in caught.value.details()
    np.testing.assert_array_equal(server.infer(MODEL, IMAGES), before)
    path.write_bytes(content)
    load(server)
    np.testing.assert_allclose(server.infer(MODEL, IMAGES), before, atol=1e-5)


def test_a_model_whose_file_is_gone_is_not_loaded_and_the_old_weights_stay(
    server: ServerProcess, weights: Path
) -> None:
    before = server.infer(MODEL, IMAGES)
    weights_path(MODEL, weights).unlink()
    with pytest.raises(grpc.RpcError) as caught:
        load(server)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert f"{weights_path(MODEL, weights)} does not exist" in caught.value.details()
    np.testing.assert_array_equal(server.infer(MODEL, IMAGES), before)
    (line,) = [line for line in server.log().splitlines() if "was not loaded" in line]
    assert "WARNING" in line
    assert re.search(r"caller=\"?ipv[46]", line)
    page = metrics_page(server)
    assert f'rootserve_model_loads_total{{model="{MODEL}",outcome="failed"}} 1.0' in page


def test_random_weights_are_served_only_where_they_were_asked_for(weights: Path) -> None:
    with running_server(
        *FAKE, "--models", f"{MODEL},nin-orig", "--weights", str(weights)
    ) as server:
        with pytest.raises(grpc.RpcError) as caught:
            load(server, "nin-col-2")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "--untrained any" in caught.value.details()
        # This one was named at the start, and had no weights then.
        unload(server, "nin-orig")
        load(server, "nin-orig")
        assert server.infer("nin-orig", IMAGES)[0, 0] == 90
        assert "model nin-orig was loaded, untrained" in server.log()


async def test_unloading_while_the_only_worker_dies_ends_and_answers_what_was_admitted() -> None:
    with running_server(*FAKE) as server:
        (worker,) = server.worker_pids()
        suspend(worker)
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            calls = [stub.ModelInfer(infer_request(MODEL, IMAGES), timeout=60) for _ in range(3)]
            calls = [asyncio.ensure_future(call) for call in calls]
            await asyncio.sleep(0.5)
            request = oip.RepositoryModelUnloadRequest(model_name=MODEL)
            unloading = stub.RepositoryModelUnload(request, timeout=60)
            await asyncio.sleep(0.3)
            os.kill(worker, signal.SIGKILL)
            for call in calls:
                assert logits(await call)[0, 0] == 90
            await unloading
            await stub.RepositoryModelLoad(LOAD, timeout=60)
        assert server.infer(MODEL, IMAGES)[0, 0] == 90


def test_a_replacement_does_not_compute_with_weights_that_were_not_loaded(weights: Path) -> None:
    arguments = ("--device", "cpu", "--engine", "torch", "--model-control", "explicit")
    with running_server(*arguments, "--weights", str(weights)) as server:
        write_new_weights(weights)
        (worker,) = server.worker_pids()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: "was replaced: its SHA-256" in server.log())
        with pytest.raises(grpc.RpcError) as caught:
            server.infer(MODEL, IMAGES)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        load(server)
        np.testing.assert_allclose(server.infer(MODEL, IMAGES), expected(weights), atol=1e-4)


def test_a_worker_that_dies_during_a_load_is_replaced_and_the_load_refused() -> None:
    with running_server(*FAKE, "--cpu-workers", "2") as server:
        wait_until(lambda: server.log().count("is ready") == 2)
        dies, waits = server.worker_pids()
        for pid in (dies, waits):
            suspend(pid)
        call = server.stub.RepositoryModelLoad.future(LOAD, timeout=60)
        with pytest.raises(grpc.FutureTimeoutError):
            call.result(timeout=0.5)
        os.kill(dies, signal.SIGKILL)
        # Its replacement gets ready while the load still waits for the other one.
        wait_until(lambda: server.log().count("is ready") == 3)
        os.kill(waits, signal.SIGCONT)
        assert call.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "a worker died while loading" in call.details()
        load(server)
        assert server.log().count("ended with status") == 1
        assert server.infer(MODEL, IMAGES)[0, 0] == 90


def test_a_worker_that_hangs_while_it_loads_is_replaced_and_the_load_refused() -> None:
    with running_server(*FAKE, "--load-timeout-s", "5") as server:
        (hangs,) = server.worker_pids()
        suspend(hangs)
        with pytest.raises(grpc.RpcError) as caught:
            server.stub.RepositoryModelLoad(LOAD, timeout=60)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"hangs loading {MODEL} and is killed" in server.log()
        assert server.infer(MODEL, IMAGES)[0, 0] == 90
        assert hangs not in server.worker_pids()


def test_a_model_is_loaded_and_unloaded(server: ServerProcess) -> None:
    with pytest.raises(grpc.RpcError):
        server.infer("nin-col-2", IMAGES)
    load(server, "nin-col-2")
    assert np.isfinite(server.infer("nin-col-2", IMAGES)).all()
    ready = server.stub.RepositoryIndex(oip.RepositoryIndexRequest(ready=True)).models
    assert [model.name for model in ready] == ["nin-root-16", "nin-col-2"]
    unload(server, "nin-col-2")
    with pytest.raises(grpc.RpcError) as caught:
        server.infer("nin-col-2", IMAGES)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert server.infer(MODEL, IMAGES).shape == (2, 10)
    load(server, "nin-col-2")
    assert np.isfinite(server.infer("nin-col-2", IMAGES)).all()


def test_weights_for_other_images_are_served_once_the_old_ones_are_unloaded(weights: Path) -> None:
    with running_server(*FAKE, "--weights", str(weights)) as server:
        model, info = load_weights(weights_path(MODEL, weights))
        save_weights(weights_path(MODEL, weights), model, replace(info, image_size=48))
        with pytest.raises(grpc.RpcError) as caught:
            load(server)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "for 48x48 images and 10 classes, those that are served for 32x32" in (
            caught.value.details()
        )
        assert server.infer(MODEL, IMAGES)[0, 0] == 90
        unload(server)
        load(server)
        with pytest.raises(grpc.RpcError, match=r"expected \[rows, 3, 48, 48\]"):
            server.infer(MODEL, IMAGES)
        assert server.infer(MODEL, np.full((1, 3, 48, 48), 90, np.uint8))[0, 0] == 90


async def test_unloading_under_load_answers_what_was_admitted(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer(infer_request(MODEL, IMAGES), timeout=30) for _ in range(100)]
        await calls[0]
        await asyncio.to_thread(unload, server)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, grpc.aio.AioRpcError):
            assert outcome.code() is grpc.StatusCode.NOT_FOUND
        else:
            assert logits(outcome).shape == (2, 10)


def test_what_cannot_be_asked_is_refused(server: ServerProcess) -> None:
    with pytest.raises(grpc.RpcError) as unknown:
        load(server, "nin-root-3")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as parameters:
        load(server, warm=True)
    assert parameters.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (
        "parameters warm came, expected at most config and rollback" in parameters.value.details()
    )


def test_it_is_off_unless_asked_for() -> None:
    with running_server("--models", MODEL, "--engine", "fake") as server:
        for call in (load, unload):
            with pytest.raises(grpc.RpcError) as caught:
                call(server)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "--model-control explicit" in caught.value.details()
