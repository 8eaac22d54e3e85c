"""What a request costs the front process, beside an empty server: ``python -m benchmarks.request_cost``.

Three servers run side by side: rootserve; an empty grpc.aio server of the same protocol on the same event
loop, which decodes each request and answers with the same message; and one that does no more than hand the
requests to a worker process with the same engine (benchmarks/reference/handover_server.py). A process of its
own loads them in turns, forwards and backwards, one image per request: with a given rate of requests
(Poisson), the same work for all, or with callers that ask again as soon as they are answered. What counts is
the processor time of the serving process without its children, divided by the requests: unlike the wall
clock, it says little of who else was busy.

With callers, the empty server is asked far more often than those that compute, and many requests come to it
at a time, which makes each cheaper: only with the fake engine are they comparable there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvloop
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from benchmarks.reference.protocol import Described, serve_until_killed
from benchmarks.rounds import spread
from benchmarks.server_process import Server, serving
from rootmodels.processor import cpu_name
from rootserve.server.machine import cpu_count
from rootserve.server.main import main as serve
from tests.support.server_process import infer_request, plain_images

MODEL = "nin-root-16"
KINDS = ("empty", "handover", "rootserve")


@dataclass(frozen=True, slots=True)
class Load:
    """How a server is loaded: by ``callers``, each with one request under way, or ``rate`` per second."""

    kind: str
    callers: int
    connections: int
    rate: float = 0.0

    @property
    def name(self) -> str:
        """For the table."""
        joint = "1 connection" if self.connections == 1 else f"{self.connections} connections"
        who = "1 caller" if self.callers == 1 else f"{self.callers} callers"
        return f"{self.kind}, {f'{self.rate:.0f} requests/s' if self.rate else who}, {joint}"


LOADS = (
    Load("unary", 1, 1, rate=200),
    Load("unary", 1, 1, rate=600),
    Load("unary", 8, 8, rate=600),
    Load("stream", 1, 1, rate=200),
    Load("stream", 1, 1, rate=600),
    Load("stream", 8, 8, rate=600),
    Load("unary", 1, 1),
    Load("unary", 8, 1),
    Load("unary", 32, 1),
    Load("unary", 32, 8),
    Load("stream", 1, 1),
    Load("stream", 8, 1),
    Load("stream", 32, 1),
    Load("stream", 32, 8),
)


class EmptyService(Described):
    """Answers every request with the same message."""

    def __init__(self) -> None:
        self._response = oip.ModelInferResponse(model_name=MODEL, model_version="1")
        self._response.outputs.add(name="logits", datatype="FP32", shape=(1, 10))
        self._response.raw_output_contents.append(bytes(40))

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer one request."""
        return self._response

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Answer a stream of requests."""
        async for _ in requests:
            yield oip.ModelStreamInferResponse(infer_response=self._response)


def command(kind: str, args: argparse.Namespace) -> list[str]:
    """What starts a server."""
    engine = ["--engine", args.engine, "--precision", args.precision]
    if kind == "handover":
        module = "benchmarks.reference.handover_server"
        return [sys.executable, "-m", module, "--model", MODEL, *engine]
    return [sys.executable, "-m", "benchmarks.request_cost", "--serve", kind, *engine]


async def generate(address: str, load: Load, seconds: float) -> None:
    """Load the server and print how many requests were answered."""
    request = infer_request(MODEL, plain_images(1))
    end_s = time.perf_counter() + seconds

    async def ask(stub: Any) -> int:
        answered = 0
        while time.perf_counter() < end_s:
            await stub.ModelInfer(request)
            answered += 1
        return answered

    async def stream(stub: Any) -> int:
        call = stub.ModelStreamInfer()
        answered = 0
        while time.perf_counter() < end_s:
            await call.write(request)
            response = await call.read()
            assert not response.error_message, response.error_message
            answered += 1
        await call.done_writing()
        await call.read()
        return answered

    async with AsyncExitStack() as stack:
        stubs = []
        for number in range(load.connections):
            # Channels with the same arguments would share a connection.
            options = [("grpc.channel_number", number)]
            channel = grpc.aio.insecure_channel(address, options)
            await stack.enter_async_context(channel)
            stubs.append(service_pb2_grpc.GRPCInferenceServiceStub(channel))
        await stubs[0].ModelInfer(request, wait_for_ready=True)
        if load.rate:
            poisson = poisson_calls if load.kind == "unary" else poisson_stream
            share = load.rate / load.connections
            calls = [poisson(stub, request, share, seconds, n) for n, stub in enumerate(stubs)]
        else:
            call = ask if load.kind == "unary" else stream
            calls = [call(stubs[number % load.connections]) for number in range(load.callers)]
        print(sum(await asyncio.gather(*calls)))


def instants(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """When requests are due, in seconds from the beginning."""
    rng = random.Random(seed)
    due = 0.0
    while (due := due + rng.expovariate(rate)) < seconds:
        yield due


async def ask_once(stub: Any, request: oip.ModelInferRequest) -> None:
    """One unary call."""
    await stub.ModelInfer(request)


async def poisson_calls(
    stub: Any, request: oip.ModelInferRequest, rate: float, seconds: float, seed: int
) -> int:
    """So many unary calls; returns how many were answered."""
    calls = []
    began = time.perf_counter()
    for due in instants(rate, seconds, seed):
        await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
        calls.append(asyncio.ensure_future(ask_once(stub, request)))
    await asyncio.gather(*calls)
    return len(calls)


async def poisson_stream(
    stub: Any, request: oip.ModelInferRequest, rate: float, seconds: float, seed: int
) -> int:
    """So many requests over a stream; returns how many were answered."""
    stream = stub.ModelStreamInfer()
    sent = answered = 0

    async def read() -> None:
        nonlocal answered
        async for response in stream:
            assert not response.error_message, response.error_message
            answered += 1

    reading = asyncio.ensure_future(read())
    began = time.perf_counter()
    for due in instants(rate, seconds, seed):
        await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
        await stream.write(request)
        sent += 1
    await stream.done_writing()
    await reading
    assert answered == sent, f"{answered} of {sent} requests were answered"
    return answered


def turn(server: Server, load: Load, seconds: float) -> float:
    """Microseconds of the front's processor time for each request."""
    before_s = server.cpu_s()
    command = [sys.executable, "-m", "benchmarks.request_cost", "--generate", server.address]
    command += ["--load", str(LOADS.index(load)), "--seconds", str(seconds)]
    answered = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return (server.cpu_s() - before_s) / answered * 1e6


def measure(args: argparse.Namespace, loads: list[Load]) -> list[dict[str, Any]]:
    """Every load on all servers in turns; a row for each load."""
    rows = []
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(serving(command(kind, args))) for kind in KINDS}
        for load in loads:
            us: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for number in range(args.rounds + 1):
                for kind in KINDS[::-1] if number % 2 else KINDS:
                    found = turn(servers[kind], load, args.seconds)
                    if number:  # the first round warms up
                        us[kind].append(found)
            rows.append({"load": load.name, "us": us})
            print(line(load, us), flush=True)
    return rows


def line(load: Load, us: dict[str, list[float]]) -> str:
    """One row of the Markdown table: medians, and the ratios to the empty server within a round."""
    cells = [f"{statistics.median(us[kind]):.0f}" for kind in KINDS]
    for kind in KINDS[1:]:
        ratios = [one / empty for one, empty in zip(us[kind], us["empty"], strict=True)]
        cells.append(spread(ratios, 2))
    return f"| {load.name} | {' | '.join(cells)} |"


def main() -> int:
    """Measure; with ``--serve`` or ``--generate``, be one of the processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a turn")
    parser.add_argument("--only", help="loads whose names contain this")
    parser.add_argument("--engine", default="fake", help="what the worker computes with")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", choices=["rootserve", "empty"], help=argparse.SUPPRESS)
    parser.add_argument("--generate", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve == "empty":
        uvloop.run(serve_until_killed(EmptyService()))
        return 0
    if args.serve:
        ports = ["--port", "0", "--metrics-port", "0", "--device", "cpu", "--models", MODEL]
        return serve(
            [*ports, "--engine", args.engine, "--precision", args.precision, "--log-level", "error"]
        )
    if args.generate:
        uvloop.run(generate(args.generate, LOADS[args.load], args.seconds))
        return 0
    machine = {
        "cpu": cpu_name(),
        "processors": cpu_count(),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "load": os.getloadavg()[0],
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    columns = [*(f"{kind}, us" for kind in KINDS), *(f"{kind} / empty" for kind in KINDS[1:])]
    print(f"\n| load | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    loads = [load for load in LOADS if not args.only or args.only in load.name]
    rows = measure(args, loads)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
