"""Malformed requests to every method, over calls and streams, with shared memory and model control."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2 as oip

from rootserve.v1 import analysis_pb2, catalog_pb2
from tests.support.server_process import ServerProcess, infer_request, plain_images

MODEL, OTHER_MODEL = "nin-root-16", "nin-col-16"
"""What is asked to infer, and what is loaded and unloaded."""
SERVED = ("--models", f"{MODEL},{OTHER_MODEL}", "--engine", "fake")
OPTIONS = (*SERVED, "--shared-memory", "system", "--model-control", "explicit")
"""Of the server, beside others."""

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
REGION = "region"
CALLERS = 64

CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
}
"""What may come of it; UNAVAILABLE of a model that is being loaded."""
ODD_NUMBERS = (-(2**63), -1, 0, 1, 3, 32, 33, 2**31, 2**62, 2**63 - 1)
ODD_NAMES = ("", "images", "logits", "\x00", "é" * 50, "../../etc/passwd", "x" * 5000, MODEL)


_ENDED_EARLY = "Internal error from Core"
"""What grpc.aio makes of it, in the client, when a stream ends while it still writes."""


class UnexpectedCodeError(AssertionError):
    """A malformed request got a status that it must not get."""


@contextlib.contextmanager
def shared_file() -> Iterator[str]:
    """The key of a file in shared memory."""
    key = f"rootserve-malformed-{secrets.token_hex(8)}"
    path = Path("/dev/shm") / key
    path.write_bytes(bytes(8192))
    try:
        yield key
    finally:
        path.unlink()


def valid_messages(key: str) -> dict[str, bytes]:
    """A valid request for each unary method; ``key`` is that of a region of shared memory."""
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
        f"{service}SystemSharedMemoryStatus": oip.SystemSharedMemoryStatusRequest(
            name=REGION
        ).SerializeToString(),
        f"{service}SystemSharedMemoryRegister": oip.SystemSharedMemoryRegisterRequest(
            name=REGION, key=key, byte_size=4096
        ).SerializeToString(),
        f"{service}SystemSharedMemoryUnregister": oip.SystemSharedMemoryUnregisterRequest(
            name=REGION
        ).SerializeToString(),
        f"{service}RepositoryModelLoad": oip.RepositoryModelLoadRequest(
            model_name=OTHER_MODEL
        ).SerializeToString(),
        f"{service}RepositoryModelUnload": oip.RepositoryModelUnloadRequest(
            model_name=OTHER_MODEL
        ).SerializeToString(),
        "/rootserve.v1.AnalysisService/ListDatasets": b"",
        "/rootserve.v1.AnalysisService/GetProfile": analysis_pb2.GetProfileRequest(
            model=MODEL
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


def share(parameters: Any, rng: random.Random) -> None:
    """Say that a tensor is in shared memory, somewhere."""
    parameters["shared_memory_region"].string_param = rng.choice((*ODD_NAMES, REGION))
    parameters["shared_memory_byte_size"].int64_param = rng.choice((*ODD_NUMBERS, 40, 3072))
    if rng.random() < 0.5:
        parameters["shared_memory_offset"].int64_param = rng.choice(ODD_NUMBERS)


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
        lambda: share(tensor.parameters, rng),
        lambda: share(request.outputs.add(name="logits").parameters, rng),
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
    """Memory of the front process."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


async def bombard(address: str, requests: int, seed: int, key: str) -> Counter[grpc.StatusCode]:
    """Send ``requests`` malformed requests; count the codes of the answers.

    Raises:
        UnexpectedCodeError: One of them got another code than those of :data:`CODES`.
    """
    rng = random.Random(seed)
    valid = valid_messages(key)
    codes: Counter[grpc.StatusCode] = Counter()
    left = iter(range(requests))
    async with grpc.aio.insecure_channel(address) as channel:

        async def caller() -> None:
            for _ in left:
                method, content = malformed(rng, valid)
                call = channel.unary_unary(method)(content, timeout=30)
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await call
                await check(call, f"{method} {content!r}")
                codes[await call.code()] += 1

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return codes


async def check(call: Any, what: str) -> None:
    """Whether ``call`` ended as it may.

    Raises:
        UnexpectedCodeError: It did not.
    """
    code, details = await call.code(), await call.details()
    if code not in CODES and details != _ENDED_EARLY:
        raise UnexpectedCodeError(f"{code}: {details} for {what[:1000]}")


async def bombard_streams(address: str, messages: int, seed: int) -> Counter[grpc.StatusCode]:
    """As :func:`bombard`, over streams of up to ten messages, of which every other one is good."""
    rng = random.Random(seed)
    good = infer_request(MODEL, plain_images(1)).SerializeToString()
    codes: Counter[grpc.StatusCode] = Counter()
    left = iter(range(messages))
    async with grpc.aio.insecure_channel(address) as channel:
        stream = channel.stream_stream(STREAM)

        async def caller() -> None:
            while contents := [malformed_message() for _ in islice(left, rng.randint(1, 10))]:
                call = stream(iter(contents), timeout=30)
                with contextlib.suppress(grpc.aio.AioRpcError):
                    async for _ in call:
                        pass
                await check(call, f"a stream of {contents!r}")
                codes[await call.code()] += 1

        def malformed_message() -> bytes:
            match rng.randrange(4):
                case 0:
                    return odd_infer_request(rng)
                case 1:
                    return mutated_bytes(good, rng)
                case _:
                    return good

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return codes
