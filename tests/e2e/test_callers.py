"""Callers who cancel, give up or come too early, and a queue that is full."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from tests.support.server_process import (
    ServerProcess,
    command_image,
    infer_request,
    logits,
    plain_images,
    running_server,
)

MODEL = "nin-root-16"
# 0.3 s of a worker's time, in a batch that is full and so goes at once and alone.
BUSY = infer_request(
    MODEL, np.concatenate([command_image(b"sleep" + bytes([30])), plain_images(31)])
)


# One batch at a time: what comes behind it waits in the queue.
ARGUMENTS = (
    "--models",
    MODEL,
    "--engine",
    "fake",
    "--max-queue-rows",
    "32",
    "--optimize-for",
    "latency",
)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server(*ARGUMENTS, "--max-delay-us", "100000") as started:
        yield started


@pytest.fixture
async def stub(
    server: ServerProcess,
) -> AsyncIterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.mark.parametrize("which", [0, 2, 4], ids=["first", "middle", "last"])
@pytest.mark.parametrize("while_computed", [False, True], ids=["queued", "computed"])
async def test_one_caller_of_a_batch_cancels_and_the_others_get_their_answers(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, which: int, while_computed: bool
) -> None:
    busy = stub.ModelInfer(BUSY, timeout=30)
    await asyncio.sleep(0.1)
    calls = []
    for value in range(5):
        images = plain_images(1, value)
        if while_computed and value == 1:
            images = command_image(b"sleep" + bytes([100]))
        calls.append(stub.ModelInfer(infer_request(MODEL, images), timeout=30))
    await asyncio.sleep(0.5 if while_computed else 0.05)
    assert not calls[which].done()
    calls[which].cancel()
    await busy
    for value, call in enumerate(calls):
        if value == which:
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            response = await call
            assert logits(response).shape == (1, 10)
            # The cancelled one had left the queue, or was still part of what was computed.
            assert response.parameters["batch_rows"].int64_param == (5 if while_computed else 4)
    after = await stub.ModelInfer(infer_request(MODEL, plain_images(1, 7)), timeout=30)
    assert logits(after)[0][0] == 7.0


async def test_a_deadline_that_passes_in_the_queue_is_kept(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
) -> None:
    busy = stub.ModelInfer(BUSY, timeout=30)
    await asyncio.sleep(0.1)
    request = infer_request(MODEL, plain_images(1))
    request.parameters["deadline_ms"].int64_param = 50
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(request, timeout=30)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "passed while the request waited" in caught.value.details()
    assert not busy.done()
    await busy


async def deadline_behind_a_busy_worker(address: str) -> int:
    """A request whose deadline passes behind a batch of 0.3 s gets no answer, its companion does.

    Gives the rows of the batch in which the companion was.
    """
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        busy = stub.ModelInfer(BUSY, timeout=30)
        await asyncio.sleep(0.1)
        # 32 rows, so that a batch goes ahead at once; the first half has a deadline, the other not.
        late, kept = (infer_request(MODEL, plain_images(16, value)) for value in (0, 8))
        late.parameters["deadline_ms"].int64_param = 50
        calls = [stub.ModelInfer(request, timeout=30) for request in (late, kept)]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls[0]
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        answer = await calls[1]
        assert logits(answer)[:, 0].tolist() == [8.0] * 16
        await busy
        return answer.parameters["batch_rows"].int64_param


async def test_a_deadline_that_passes_ahead_of_a_busy_worker_is_kept() -> None:
    with running_server(*ARGUMENTS, "--max-delay-us", "100000") as fresh:
        # Nothing is known of how long a batch takes: the worker has it already, and does not compute it.
        assert await deadline_behind_a_busy_worker(fresh.address) == 32
        # By now it is: a request that would be late is not even given to the worker.
        assert await deadline_behind_a_busy_worker(fresh.address) == 16


async def test_rows_over_the_queue_limit_are_refused_and_the_rest_is_answered(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
) -> None:
    busy = stub.ModelInfer(BUSY, timeout=30)
    await asyncio.sleep(0.1)
    request = infer_request(MODEL, plain_images(8))
    calls = []
    # One full batch goes ahead to the busy worker, one more waits, the third is refused.
    for _ in range(3):
        calls += [stub.ModelInfer(request, timeout=30) for _ in range(4)]
        await asyncio.sleep(0.05)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    await busy
    refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert len(refused) == 4
    for error in refused:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "is full: 32 rows wait, 8 more came, the limit is 32" in error.details()
        metadata = dict(error.trailing_metadata())
        status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
        retry = error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(retry)
        assert 0 < retry.retry_delay.ToMilliseconds() < 60_000


async def test_the_highest_priority_is_computed_first(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
) -> None:
    busy = stub.ModelInfer(BUSY, timeout=30)
    await asyncio.sleep(0.1)
    finished = []

    async def ask(priority: int) -> None:
        request = infer_request(MODEL, plain_images(32, priority))
        request.parameters["priority"].int64_param = priority
        await stub.ModelInfer(request, timeout=30)
        finished.append(priority)

    # The first one goes ahead to the busy worker; the others wait, each in its own priority's queue.
    calls = [asyncio.ensure_future(ask(3))]
    await asyncio.sleep(0.05)
    for priority in (3, 2, 1):
        calls.append(asyncio.ensure_future(ask(priority)))
        await asyncio.sleep(0.02)
    await asyncio.gather(busy, *calls)
    assert finished == [3, 1, 2, 3]


async def test_a_stream_that_is_cancelled_leaves_nothing_behind(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
) -> None:
    async def requests() -> AsyncIterator[oip.ModelInferRequest]:
        for _ in range(5):
            yield BUSY
        await asyncio.sleep(60)

    stream = stub.ModelStreamInfer(requests(), timeout=30)
    await stream.read()
    stream.cancel()
    response = await stub.ModelInfer(infer_request(MODEL, plain_images(1, 3)), timeout=30)
    assert logits(response)[0][0] == 3.0


def test_a_request_that_comes_during_warm_up_is_refused_and_does_not_hang() -> None:
    with ServerProcess("--models", MODEL, "--device", "cpu") as server:
        health = health_pb2_grpc.HealthStub(server.channel)

        def status(service: str) -> int:
            return health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status

        assert status("") == status(MODEL) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not server.stub.ServerReady(oip.ServerReadyRequest(), timeout=10).ready
        assert not server.stub.ModelReady(oip.ModelReadyRequest(name=MODEL), timeout=10).ready
        with pytest.raises(grpc.RpcError) as caught:
            server.infer(MODEL, plain_images(1), timeout_s=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert f"{MODEL} is not ready: loading and warming up" in caught.value.details()

        server.wait_ready()
        assert status("") == status(MODEL) == health_pb2.HealthCheckResponse.SERVING
        assert np.isfinite(server.infer(MODEL, plain_images(1))).all()
