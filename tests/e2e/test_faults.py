"""Workers that die or fail, shutdown under load, and starts that cannot succeed: real processes."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from rootmodels.weights_info import weights_path
from tests.support.server_process import (
    PATIENCE_S,
    ServerProcess,
    command_image,
    infer_request,
    logits,
    plain_images,
    running_server,
    suspend,
    wait_until,
)

MODEL = "nin-root-16"
FAKE = ("--models", MODEL, "--engine", "fake", "--device", "cpu")
SIDE_BY_SIDE = (*FAKE, "--optimize-for", "adaptive", "--threads", "4")


async def send(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, value: int, requests: int, pause_s: float = 0.0
) -> int:
    """One caller: sends and checks ``requests`` answers; gives how many there were."""
    for _ in range(requests):
        response = await stub.ModelInfer(infer_request(MODEL, plain_images(1, value)), timeout=60)
        assert logits(response)[0][0] == value
        await asyncio.sleep(pause_s)
    return requests


arranged = pytest.mark.parametrize("optimize_for", ["latency", "adaptive"])


@arranged
async def test_what_a_killed_worker_had_is_answered_by_its_replacement(optimize_for: str) -> None:
    with running_server(*FAKE, "--optimize-for", optimize_for) as server:
        (before,) = server.worker_pids()
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            suspend(before)
            callers = [asyncio.ensure_future(send(stub, value, 1)) for value in range(8)]
            await asyncio.sleep(0.3)
            os.kill(before, signal.SIGKILL)
            assert await asyncio.gather(*callers) == [1] * 8
        (after,) = server.worker_pids()
        assert before != after
        assert "ended with status -9" in server.log()


def spoil(weights: str) -> None:
    Path(weights).write_bytes(b"no weights any more")


async def test_requests_are_refused_when_the_replacement_cannot_load(tmp_path: Path) -> None:
    """What waits for a worker that never comes must not wait for ever."""
    weights = shutil.copy(weights_path(MODEL), tmp_path)
    arguments = ("--models", MODEL, "--engine", "torch", "--device", "cpu")
    with running_server(*arguments, "--weights", str(tmp_path)) as server:
        (worker,) = server.worker_pids()
        suspend(worker)
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            call = stub.ModelInfer(infer_request(MODEL, plain_images(1)), timeout=60)
            await asyncio.sleep(0.3)
            spoil(weights)
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "was replaced: its SHA-256 begins with" in caught.value.details()
        with pytest.raises(grpc.RpcError) as refused:
            server.infer(MODEL, plain_images(1))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_saturated_model_does_not_keep_another_one_waiting() -> None:
    arguments = ("--models", f"{MODEL},nin-orig", "--engine", "fake", "--device", "cpu")
    with running_server(*arguments, "--max-queue-rows", "256") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            nap = np.concatenate([command_image(b"sleep\x01"), plain_images(31)])
            full = infer_request(MODEL, nap)
            done = asyncio.Event()

            async def saturate() -> None:
                while not done.is_set():
                    await stub.ModelInfer(full, timeout=60)

            callers = [asyncio.ensure_future(saturate()) for _ in range(6)]
            await asyncio.sleep(0.3)
            other = infer_request("nin-orig", plain_images(1, 4))
            answers = [await stub.ModelInfer(other, timeout=20) for _ in range(5)]
            done.set()
            await asyncio.gather(*callers)
        assert [logits(answer)[0][0] for answer in answers] == [4.0] * 5


async def test_with_a_second_worker_a_kill_is_not_noticed() -> None:
    with running_server(*FAKE, "--cpu-workers", "2") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            callers = [asyncio.ensure_future(send(stub, value, 100, 0.002)) for value in range(8)]
            await asyncio.sleep(0.1)
            os.kill(server.worker_pids()[0], signal.SIGKILL)
            assert sum(await asyncio.gather(*callers)) == 800
        wait_until(lambda: len(server.worker_pids()) == 2)


@pytest.mark.parametrize(
    "arrangement",
    [("--cpu-workers", "2"), ("--optimize-for", "adaptive"), ("--optimize-for", "latency")],
)
async def test_a_request_that_kills_workers_is_found_and_refused_alone(
    arrangement: tuple[str, str],
) -> None:
    # The batch is closed when all five are there, and not before.
    together = ("--max-delay-us", "5000000", "--max-batch-rows", "5")
    with running_server(*FAKE, *arrangement, *together) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            images = [plain_images(1, value) for value in range(4)]
            images.insert(2, command_image(b"exit"))
            calls = [stub.ModelInfer(infer_request(MODEL, image), timeout=60) for image in images]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        poison = outcomes.pop(2)
        assert isinstance(poison, grpc.aio.AioRpcError)
        assert poison.code() is grpc.StatusCode.INTERNAL
        assert "2 workers died while they computed this request" in poison.details()
        assert [logits(outcome)[0][0] for outcome in outcomes] == [0, 1, 2, 3]


async def a_crowd(stub: Any) -> list[asyncio.Future[Any]]:
    """So many requests under way that batches are computed side by side."""
    naps = infer_request(MODEL, command_image(b"sleep" + bytes([10])))
    crowd = [asyncio.ensure_future(stub.ModelInfer(naps, timeout=60)) for _ in range(6)]
    await asyncio.sleep(0.15)
    return crowd


async def test_what_is_computed_beside_a_request_that_kills_its_worker_is_answered() -> None:
    with running_server(*SIDE_BY_SIDE) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            crowd = await a_crowd(stub)
            poison = infer_request(MODEL, command_image(b"exit"))
            fatal = asyncio.ensure_future(stub.ModelInfer(poison, timeout=60))
            callers = [asyncio.ensure_future(send(stub, value, 20)) for value in range(6)]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await fatal
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert "2 workers died while they computed this request" in caught.value.details()
            assert await asyncio.gather(*callers) == [20] * 6
            assert all(logits(answer) is not None for answer in await asyncio.gather(*crowd))


async def test_a_request_that_hangs_is_found_while_others_are_computed_beside_it() -> None:
    with running_server(*SIDE_BY_SIDE, "--hang-s", "1") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            crowd = await a_crowd(stub)
            stuck = infer_request(MODEL, command_image(b"hang"))
            hanging = asyncio.ensure_future(stub.ModelInfer(stuck, timeout=60))
            callers = [asyncio.ensure_future(send(stub, value, 200, 0.01)) for value in range(6)]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await hanging
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert await asyncio.gather(*callers) == [200] * 6
            await asyncio.gather(*crowd)
        assert "hangs computing a batch and is killed" in server.log()


async def test_a_model_exception_answers_its_batch_and_nothing_else() -> None:
    with running_server(*FAKE) as server:
        with pytest.raises(grpc.RpcError) as caught:
            server.infer(MODEL, command_image(b"raise"))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "RuntimeError: the fake engine was asked to raise" in caught.value.details()
        assert server.infer(MODEL, plain_images(2, 9))[1][0] == 9.0


@arranged
async def test_sigterm_under_load_loses_nothing_that_was_admitted(optimize_for: str) -> None:
    with running_server(*FAKE, "--optimize-for", optimize_for) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            slow = infer_request(MODEL, command_image(b"sleep" + bytes([20])))
            calls = [stub.ModelInfer(slow, timeout=60) for _ in range(5)]
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(infer_request(MODEL, plain_images(1)), timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "shutting down" in caught.value.details()
            for call in calls:
                assert logits(await call).shape == (1, 10)
        assert server.process.wait(PATIENCE_S) == 0


async def test_whoever_asks_a_server_until_its_end_sees_unavailable() -> None:
    with running_server(*FAKE) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            codes = Counter[grpc.StatusCode]()

            async def ask_on() -> None:
                details = ""
                while "connect" not in details.lower():
                    try:
                        await stub.ModelInfer(infer_request(MODEL, plain_images(1)), timeout=60)
                    except grpc.aio.AioRpcError as error:
                        details = error.details() or ""
                        codes[error.code()] += 1

            callers = [asyncio.ensure_future(ask_on()) for _ in range(32)]
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*callers)
        assert set(codes) == {grpc.StatusCode.UNAVAILABLE}
        assert server.process.wait(PATIENCE_S) == 0


async def test_a_hanging_worker_is_replaced_and_only_the_request_that_hangs_it_is_refused() -> None:
    with running_server(*FAKE, "--hang-s", "1") as server:
        (before,) = server.worker_pids()
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            hang = stub.ModelInfer(infer_request(MODEL, command_image(b"hang")), timeout=90)
            await asyncio.sleep(0.2)
            others = [asyncio.ensure_future(send(stub, value, 3)) for value in range(4)]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await hang
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert await asyncio.gather(*others) == [3] * 4
        assert before not in server.worker_pids()
        assert "hangs computing a batch and is killed" in server.log()


def health(server: ServerProcess) -> str:
    command = [sys.executable, "-m", "rootserve.client", "health", "--server", server.address]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_workers_that_hang_at_the_start_are_replaced_and_the_reason_is_told() -> None:
    with ServerProcess(*FAKE, "--load-timeout-s", "0.01") as server:
        wait_until(lambda: "times in a row while loading" in health(server))
        assert server.log().count("hangs starting and is killed") >= 3
        with pytest.raises(grpc.RpcError) as caught:
            server.infer(MODEL, plain_images(1))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


@arranged
async def test_callers_notice_nothing_when_the_only_worker_is_killed_again_and_again(
    optimize_for: str,
) -> None:
    with running_server(*FAKE, "--optimize-for", optimize_for) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            callers = [asyncio.ensure_future(send(stub, value, 150, 0.05)) for value in range(8)]
            await asyncio.sleep(0.5)
            files = names(f"/proc/{server.process.pid}/fd")
            memory = names("/dev/shm")
            for _ in range(2):
                await asyncio.sleep(1)
                for worker in server.worker_pids():
                    os.kill(worker, signal.SIGKILL)
            assert await asyncio.gather(*callers) == [150] * 8
            left = names(f"/proc/{server.process.pid}/fd")
            assert len(left) <= len(files), "a file descriptor is left"
            assert names("/dev/shm") <= memory, "shared memory is left"
        assert len(server.worker_pids()) == 1


def test_a_second_signal_ends_at_once() -> None:
    process = ServerProcess(*FAKE, "--drain-s", "60")
    process.wait_ready()
    hanging = process.stub.ModelInfer.future(infer_request(MODEL, command_image(b"hang")))
    with pytest.raises(grpc.RpcError) as waited:  # the worker hangs for sure
        process.infer(MODEL, plain_images(1), timeout_s=0.5)
    assert waited.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    (worker,) = process.worker_pids()
    process.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "shutting down" in process.log())
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(10) == 1
    assert hanging.exception() is not None
    process.end(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{worker}").exists())


def test_workers_end_when_their_server_is_killed() -> None:
    process = ServerProcess(*FAKE)
    process.wait_ready()
    (worker,) = process.worker_pids()
    process.end(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{worker}").exists())


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rootserve.server", "--metrics-port", "0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "nin-root-3"], "models: 'nin-root-3' is not one of nin-orig, nin-root-2"),
        (["--port", "x"], "--port: 'x' came, expected a valid integer"),
        (["--weights", "/nowhere"], "weights: /nowhere is no folder"),
        (["--device", "cuda:99"], "device: cuda:99 came, but torch sees"),
    ],
)
def test_a_start_that_cannot_succeed_says_why(arguments: list[str], words: str) -> None:
    result = start(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("rootserve-server: error: ")
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        grpc_port = start("--port", str(port), *FAKE)
        metrics_port = start("--port", "0", "--metrics-port", str(port), *FAKE)
    assert grpc_port.returncode == metrics_port.returncode == 2
    assert f"port: cannot listen on 127.0.0.1:{port}" in grpc_port.stderr
    assert f"metrics_port: cannot listen on 127.0.0.1:{port}" in metrics_port.stderr


def test_weights_that_cannot_be_loaded_are_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "nin-orig.safetensors").write_bytes(b"no weights")
    result = start("--weights", str(tmp_path))
    assert result.returncode == 2
    assert "nin-orig.safetensors is not a readable safetensors file" in result.stderr
