"""How far to trust `rootserve load`: ``python -m benchmarks.load_client``.

Three questions, each answered by ratios within rounds that take turns (A B A B ...):

cost    What one client process can drive, against an echo in another process that computes nothing.
sum     Does the server's own timeline plus the client's overhead give the latency that is measured? The
        overhead is measured by itself, against an echo that waits as long as the model computes, for one
        request at a time as a worker does, and tells how long it was: a processor that sleeps between
        requests wakes up slower than a busy one.
agree   Does it find the same throughput as perf_analyzer (``--perf-analyzer PATH``), or without one as
        tritonclient's aio client in a loop?

Where perf_analyzer comes from is said in ``benchmarks/perf_analyzer.py``. The server's worker leaves one
processor to the service and the client, as the echo does: where all fight for the same ones, what is measured
is the fight.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
import uvloop
from tritonclient.grpc import InferInput
from tritonclient.grpc import service_pb2 as oip

from benchmarks import closed_loop, perf_analyzer
from rootserve.client.load import LoadOptions, LoadResult, run_load
from rootserve.client.load.statistics import Ratio, paired_ratio
from rootserve.client.machine import describe_machine
from tests.support.server_process import running_server

METHOD = "ModelInfer"
SERVICE = "inference.GRPCInferenceService"
IMAGES = np.zeros((64, 3, 32, 32), np.uint8)
LEVELS = (1, 8, 32)
_LEAST_S = 0.15


def _echo(pipe: Connection, pause_s: float) -> None:
    """The echo's process: grpc.aio on uvloop as in the service, the same answer to every request."""
    worker = ThreadPoolExecutor(1)

    async def infer(request: oip.ModelInferRequest, context: object) -> oip.ModelInferResponse:
        began_ns = time.perf_counter_ns()
        answer = oip.ModelInferResponse(model_name="echo", raw_output_contents=[bytes(40)])
        answer.outputs.add(name="logits", datatype="FP32", shape=(1, 10))
        if pause_s:
            await asyncio.get_running_loop().run_in_executor(worker, time.sleep, pause_s)
        took_ns = time.perf_counter_ns() - began_ns
        for name in ("compute_ns", "total_ns"):
            answer.parameters[name].int64_param = took_ns
        return answer

    async def serve() -> None:
        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(
            infer,
            request_deserializer=oip.ModelInferRequest.FromString,
            response_serializer=oip.ModelInferResponse.SerializeToString,
        )
        generic = grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})
        server.add_generic_rpc_handlers((generic,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        pipe.send(f"127.0.0.1:{port}")
        await asyncio.to_thread(pipe.poll, None)  # until the parent closes its end
        await server.stop(None)

    uvloop.run(serve())


@contextmanager
def echo(pause_s: float = 0.0) -> Iterator[str]:
    """An echo in a process of its own; gives its address."""
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    process = spawn.Process(target=_echo, args=(theirs, pause_s), daemon=True)
    process.start()
    theirs.close()
    yield mine.recv()
    mine.close()
    process.join(5)


def load(server: str, model: str, callers: int, seconds: float, processes: int = 1) -> LoadResult:
    """One closed-loop run."""
    options = LoadOptions(
        model=model,
        server=server,
        concurrency=callers,
        duration_s=seconds,
        warmup_s=0.5,
        processes=processes,
    )
    result = asyncio.run(run_load(options, IMAGES))
    if result.errors or not result.succeeded:
        raise SystemExit(f"requests failed: {dict(result.errors)}")
    return result


@dataclass(frozen=True)
class Spread:
    """Median and range of a figure over rounds."""

    values: list[float]

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return f"{statistics.median(self.values):,.4g} ({low:,.4g}-{high:,.4g})"


def shown(ratio: Ratio | None) -> str:
    """A ratio with its interval."""
    if ratio is None or ratio.low is None:
        return "-"
    return f"{ratio.ratio:.3f} ({ratio.low:.3f}-{ratio.high:.3f})"


def cost(rounds: int, seconds: float, results: dict[str, object]) -> None:
    """What one process can drive against the echo, and what each request costs it."""
    print("cost: against an echo")
    found: dict[tuple[int, int], list[LoadResult]] = {}
    with echo() as server:
        for _ in range(rounds):
            for callers, processes in ((1, 1), (8, 1), (32, 1), (32, 2)):
                result = load(server, "echo", callers, seconds, processes)
                found.setdefault((callers, processes), []).append(result)
    for (callers, processes), runs in found.items():
        rates = Spread([run.throughput_requests_per_s for run in runs])
        each_us = Spread(
            [1e6 * run.client_cpu_cores / run.throughput_requests_per_s for run in runs]
        )
        who = f"{callers} callers in {processes} process{'es' if processes > 1 else ''}"
        print(f"  {who:26} {rates} requests/s, {each_us} us of processor each", flush=True)
        results[f"cost {who}"] = {"requests_per_s": rates.values, "cpu_us": each_us.values}


def add_up(model: str, rounds: int, seconds: float, results: dict[str, object]) -> None:
    """Server's timeline plus the overhead found with the echo, over the latency measured."""
    print(f"sum: {model}, (server's total + overhead against the echo) / measured latency, means")
    with running_server(*serving(model)) as server:
        compute_s = stages_of(load(server.address, model, 1, seconds))["compute"]
        with echo(compute_s) as there:
            for callers in (1, 2):
                pairs, overheads_us = [], []
                for _ in range(rounds):
                    overhead_s = stages_of(load(there, "echo", callers, seconds))["outside_server"]
                    run = load(server.address, model, callers, seconds)
                    stages = stages_of(run)
                    inside_s = sum(
                        stages[name] for name in ("queue", "batch_wait", "compute", "rest")
                    )
                    pairs.append((run.service_time_s.mean, inside_s + overhead_s))
                    overheads_us.append(1e6 * overhead_s)
                ratio = paired_ratio(pairs)
                latency_ms = Spread([1e3 * (measured or 0) for measured, _ in pairs])
                print(
                    f"  {callers} callers  {shown(ratio)}; latency {latency_ms} ms, "
                    f"overhead {Spread(overheads_us)} us",
                    flush=True,
                )
                results[f"sum {callers}"] = {"pairs_s": pairs, "overhead_us": overheads_us}


def stages_of(result: LoadResult) -> Mapping[str, float]:
    """The stages of a run whose server tells them."""
    assert result.stages_s is not None
    return result.stages_s


def serving(model: str) -> tuple[str, ...]:
    """Arguments of the server: all processors but one are the worker's."""
    threads = max(1, int(describe_machine()["cpu_count"]) - 1)
    return ("--models", model, "--device", "cpu", "--threads", str(threads))


async def _triton_loop(server: str, model: str, callers: int, seconds: float) -> float:
    """Requests per second of tritonclient's aio client with so many callers."""
    async with triton.InferenceServerClient(server) as client:
        tensor = InferInput("images", [1, 3, 32, 32], "UINT8")
        tensor.set_data_from_numpy(IMAGES[:1])
        level = closed_loop.Load(callers, rows=1)
        return await closed_loop.images_per_second(
            lambda: client.infer(model, [tensor]), level, seconds
        )


def agree(
    model: str, program: str | None, rounds: int, seconds: float, results: dict[str, object]
) -> None:
    """Throughput of `rootserve load` over that of the reference, in pairs."""
    name = "perf_analyzer" if program else "tritonclient's aio client"
    print(f"agree: {model}, throughput over that of {name}")
    with running_server(*serving(model)) as server:
        for callers in LEVELS:
            # A third of it must hold answers to all callers.
            length_s = max(seconds, _LEAST_S * callers)
            pairs = []
            for _ in range(rounds):
                if program:
                    theirs = perf_analyzer.requests_per_second(
                        program, server.address, model, callers, length_s
                    )
                else:
                    theirs = asyncio.run(_triton_loop(server.address, model, callers, length_s))
                ours = load(server.address, model, callers, length_s).throughput_requests_per_s
                pairs.append((theirs, ours))
            ratio = paired_ratio(pairs)
            rates = Spread([ours for _, ours in pairs])
            print(f"  {callers:2} callers  {shown(ratio)}, {rates} requests/s", flush=True)
            results[f"agree {callers}"] = {"pairs": pairs, "reference": name}


def main() -> None:
    """Answer the questions and print the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="cost,sum,agree", help="questions, separated by commas")
    parser.add_argument("--model", default="nin-orig")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    parser.add_argument("--perf-analyzer", metavar="PATH")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    machine = describe_machine()
    print(
        f"{machine['cpu']}, {machine['cpu_count']} processors, Python {platform.python_version()}"
    )
    print(f"{arguments.rounds} rounds of {arguments.seconds:g} s; median (range) or ratio (95 %)")
    results: dict[str, object] = {"machine": machine}
    rounds, seconds = arguments.rounds, arguments.seconds
    for question in arguments.only.split(","):
        if question == "cost":
            cost(rounds, seconds, results)
        elif question == "sum":
            add_up(arguments.model, rounds, seconds, results)
        elif question == "agree":
            agree(arguments.model, arguments.perf_analyzer, rounds, seconds, results)
        else:
            parser.error(f"--only {question}: expected cost, sum or agree")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
