"""More than 20,000 malformed requests to every method: only codes of the table, and the server lives."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2 as oip

from rootserve.v1 import catalog_pb2
from tests.support.server_process import (
    ServerProcess,
    infer_request,
    logits,
    plain_images,
    running_server,
)

MODEL = "nin-root-16"
INFER = "/inference.GRPCInferenceService/ModelInfer"
REQUESTS = 20_000
CALLERS = 64

CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
ODD_NUMBERS = (-(2**63), -1, 0, 1, 3, 32, 33, 2**31, 2**62, 2**63 - 1)
ODD_NAMES = ("", "images", "logits", "\x00", "é" * 50, "../../etc/passwd", "x" * 5000, MODEL)


def valid_messages() -> dict[str, bytes]:
    """A valid request for each unary method."""
    image = plain_images(1)
    floats = infer_request(MODEL, np.full((1, 3, 32, 32), 0.5, np.float32), "an id")
    floats.parameters["deadline_ms"].double_param = 10_000
    service = "/inference.GRPCInferenceService/"
    return {
        INFER: infer_request(MODEL, image, "an id").SerializeToString(),
        f"{INFER}#floats": floats.SerializeToString(),
        f"{service}ModelReady": oip.ModelReadyRequest(name=MODEL).SerializeToString(),
        f"{service}ModelMetadata": oip.ModelMetadataRequest(name=MODEL).SerializeToString(),
        f"{service}ModelConfig": oip.ModelConfigRequest(name=MODEL).SerializeToString(),
        f"{service}ModelStatistics": oip.ModelStatisticsRequest(name=MODEL).SerializeToString(),
        f"{service}RepositoryIndex": oip.RepositoryIndexRequest(ready=True).SerializeToString(),
        f"{service}ServerMetadata": b"",
        f"{service}ServerLive": b"",
        f"{service}ServerReady": b"",
        "/grpc.health.v1.Health/Check": health_pb2.HealthCheckRequest(
            service=MODEL
        ).SerializeToString(),
        "/rootserve.v1.CatalogService/ListModels": b"",
        "/rootserve.v1.CatalogService/GetServerInfo": (
            catalog_pb2.GetServerInfoRequest().SerializeToString()
        ),
    }


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """Damage to the encoded message, most of it near the start, where the structure is."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        where = min(int(rng.expovariate(1 / 30)), len(changed))
        match rng.randrange(4):
            case 0:
                changed[where:where] = rng.randbytes(rng.randint(1, 8))
            case 1:
                del changed[where : where + rng.randint(1, 50)]
            case 2 if where < len(changed):
                changed[where] = rng.randrange(256)
            case _:
                del changed[rng.randint(0, len(changed)) :]
    return bytes(changed)


def odd_infer_request(rng: random.Random) -> bytes:
    """A message that decodes, with values nobody should send."""
    request = infer_request(MODEL, plain_images(1))
    tensor = request.inputs[0]
    changes: tuple[Callable[[], object], ...] = (
        lambda: setattr(request, "model_name", rng.choice(ODD_NAMES)),
        lambda: setattr(request, "model_version", rng.choice(ODD_NAMES)),
        lambda: setattr(tensor, "name", rng.choice(ODD_NAMES)),
        lambda: setattr(tensor, "datatype", rng.choice(("FP32", "BYTES", "", "uint8"))),
        lambda: tensor.shape.__setitem__(rng.randrange(4), rng.choice(ODD_NUMBERS)),
        lambda: tensor.shape.append(rng.choice(ODD_NUMBERS)),
        lambda: tensor.contents.uint_contents.extend([rng.randrange(2**32)] * rng.randrange(4000)),
        lambda: tensor.contents.fp32_contents.extend([float("nan")] * rng.randrange(4000)),
        lambda: request.raw_input_contents.append(rng.randbytes(rng.randrange(100))),
        lambda: request.raw_input_contents.__setitem__(0, rng.randbytes(rng.randrange(4 * 3072))),
        lambda: request.inputs.add(name=rng.choice(ODD_NAMES)),
        lambda: request.outputs.add(name=rng.choice(ODD_NAMES)),
        lambda: setattr(
            request.parameters[rng.choice(("priority", "timeout", "deadline_ms", "x"))],
            "int64_param",
            rng.choice(ODD_NUMBERS),
        ),
        lambda: setattr(
            request.parameters[rng.choice(("priority", "timeout", "deadline_ms"))],
            "double_param",
            rng.choice((float("nan"), float("inf"), -1.0, 1e308)),
        ),
    )
    for _ in range(rng.randint(1, 3)):
        try:
            rng.choice(changes)()
        except IndexError:
            continue  # an earlier change took what this one would change
    return request.SerializeToString()


def malformed(rng: random.Random, valid: dict[str, bytes]) -> tuple[str, bytes]:
    """One request: where to, and its bytes."""
    if rng.random() < 0.4:
        return INFER, odd_infer_request(rng)
    method = rng.choice(list(valid))
    content = rng.randbytes(rng.randrange(200)) if rng.random() < 0.2 else valid[method]
    return method.partition("#")[0], mutated_bytes(content, rng)


def resident_kb(server: ServerProcess) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


async def bombard(address: str, requests: int, seed: int) -> Counter[grpc.StatusCode]:
    """Send ``requests`` malformed requests; count the codes of the answers."""
    rng = random.Random(seed)
    valid = valid_messages()
    codes: Counter[grpc.StatusCode] = Counter()
    left = iter(range(requests))
    async with grpc.aio.insecure_channel(address) as channel:

        async def caller() -> None:
            for _ in left:
                method, content = malformed(rng, valid)
                call = channel.unary_unary(method)(content, timeout=30)
                try:
                    await call
                except grpc.aio.AioRpcError as error:
                    if error.code() not in CODES:
                        pytest.fail(f"{error.code()}: {error.details()} for {method} {content!r}")
                codes[await call.code()] += 1

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return codes


async def bombard_streams(address: str, streams: int, seed: int) -> None:
    """Streams with a good message, a malformed one and another good one."""
    rng = random.Random(seed)
    good = infer_request(MODEL, plain_images(1)).SerializeToString()
    async with grpc.aio.insecure_channel(address) as channel:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        for _ in range(streams):
            bad = odd_infer_request(rng) if rng.random() < 0.5 else mutated_bytes(good, rng)
            call = stream(iter([good, bad, good]), timeout=30)
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for _ in call:
                    pass
            assert await call.code() in CODES


async def test_malformed_requests_get_codes_of_the_table_and_the_server_lives() -> None:
    with running_server("--models", MODEL, "--engine", "fake") as server:
        warm = await bombard(server.address, 4_000, seed=1)
        before_kb = resident_kb(server)
        codes = await bombard(server.address, REQUESTS, seed=2)
        await bombard_streams(server.address, 300, seed=3)
        grown_kb = resident_kb(server) - before_kb
        assert warm.total() + codes.total() == REQUESTS + 4_000
        assert codes[grpc.StatusCode.INVALID_ARGUMENT] > REQUESTS / 4
        assert codes[grpc.StatusCode.NOT_FOUND] > 0
        assert grown_kb < 20_000, "memory grows with what is refused"
        answer = server.stub.ModelInfer(infer_request(MODEL, plain_images(1, 3)), timeout=10)
        assert logits(answer)[0][0] == 3.0


@pytest.mark.parametrize("method", ["TraceSetting", "CudaSharedMemoryRegister", "LogSettings"])
def test_methods_that_are_not_served_say_so(method: str) -> None:
    with running_server("--models", MODEL, "--engine", "fake") as server:
        call = server.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
