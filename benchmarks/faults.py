"""What faults cost, with real processes and real kills: ``python -m benchmarks.faults``.

Each scenario starts a server of its own, drives it with an open loop (Poisson, one image per request) and
counts what became of every request. Bounded in time; ``--quick`` shortens it, ``--only`` chooses.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from rootmodels.processor import cpu_name
from rootserve.server.machine import cpu_count
from rootserve.server.observers.metrics_state import process_usage
from tests.support.server_process import (
    ServerProcess,
    command_image,
    infer_request,
    plain_images,
    running_server,
)

MODEL = "nin-root-16"
SLOWEST = "nin-orig"
PROBES_PER_S = 50.0
REAL = ("--models", MODEL, "--device", "cpu")
FAKE = ("--models", MODEL, "--device", "cpu", "--engine", "fake")


@dataclass
class Outcomes:
    """What became of the requests: seconds by status code."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, code: str, seconds: float) -> None:
        """Note one request."""
        self.seconds.setdefault(code, []).append(seconds)

    @property
    def sent(self) -> int:
        """All requests."""
        return sum(map(len, self.seconds.values()))

    @property
    def answered(self) -> int:
        """Those that got their answer."""
        return len(self.seconds.get("OK", []))

    @property
    def failed(self) -> dict[str, int]:
        """Those that did not, by code."""
        return {code: len(times) for code, times in self.seconds.items() if code != "OK"}

    def p99_ms(self) -> float | None:
        """Milliseconds within which 99 of 100 answers came."""
        return self.quantile_ms(0.99, "OK")

    def quantile_ms(self, share: float, code: str) -> float | None:
        """Milliseconds within which this share of the requests ended that ended with ``code``."""
        times = sorted(self.seconds.get(code, []))
        return times[math.ceil(share * len(times)) - 1] * 1e3 if times else None


Stub = service_pb2_grpc.GRPCInferenceServiceStub


async def ask(
    stub: Stub, outcomes: Outcomes, request: oip.ModelInferRequest, timeout_s: float = 30
) -> None:
    """One request; notes what became of it."""
    began = time.perf_counter()
    try:
        await stub.ModelInfer(request, timeout=timeout_s)
        code = "OK"
    except grpc.aio.AioRpcError as error:
        code = error.code().name
    outcomes.add(code, time.perf_counter() - began)


async def drive(
    stub: Stub, rate: float, seconds: float, seed: int = 0, model: str = MODEL
) -> Outcomes:
    """An open loop of ``rate`` requests per second; returns when all have ended."""
    rng = random.Random(seed)
    outcomes = Outcomes()
    calls = set()
    request = infer_request(model, plain_images(1, 7))
    began = time.perf_counter()
    due = 0.0
    while (due := due + rng.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
        task = asyncio.ensure_future(ask(stub, outcomes, request))
        calls.add(task)
        task.add_done_callback(calls.discard)
    await asyncio.gather(*calls)
    return outcomes


async def capacity(stub: Stub, seconds: float = 4.0, model: str = MODEL) -> float:
    """Requests per second that a closed loop of 16 callers gets answered."""
    outcomes = Outcomes()
    request = infer_request(model, plain_images(1, 7))
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < end:
            await ask(stub, outcomes, request)

    await asyncio.gather(*(caller() for _ in range(16)))
    return outcomes.answered / seconds


async def on(
    server: ServerProcess, work: Callable[[Stub], Awaitable[dict[str, object]]]
) -> dict[str, object]:
    """Run ``work`` with a channel to ``server``."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        return await work(Stub(channel))


def resident_bytes(server: ServerProcess) -> int:
    """Resident memory of the service and its workers."""
    usages = [process_usage(pid) for pid in (server.process.pid, *server.worker_pids())]
    assert None not in usages, "a process has ended"
    return sum(usage[1] for usage in usages if usage)


def kill_workers(quick: bool) -> dict[str, object]:
    """SIGKILL of one of two workers every 5 s at 70 % load."""
    seconds = 15.0 if quick else 60.0
    with running_server(*REAL, "--cpu-workers", "2") as server:

        async def work(stub: Stub) -> dict[str, object]:
            rate = 0.7 * await capacity(stub)
            kills = 0

            async def killer() -> None:
                nonlocal kills
                while True:
                    await asyncio.sleep(5)
                    os.kill(server.worker_pids()[0], signal.SIGKILL)
                    kills += 1

            killing = asyncio.ensure_future(killer())
            outcomes = await drive(stub, rate, seconds)
            killing.cancel()
            return {
                "kills": kills,
                "rate_per_s": rate,
                "sent": outcomes.sent,
                "failed": outcomes.failed,
                "p99_ms": outcomes.p99_ms(),
            }

        return asyncio.run(on(server, work))


def hanging_request(quick: bool) -> dict[str, object]:
    """A request that hangs its worker, among others at 200/s; hangs are found after 1 s."""
    return _among_others(b"hang", ("--hang-s", "1"), 5.0 if quick else 15.0)


def poison_request(quick: bool) -> dict[str, object]:
    """A request that kills its worker, among others at 200/s."""
    return _among_others(b"exit", (), 5.0 if quick else 15.0)


def _among_others(command: bytes, arguments: tuple[str, ...], seconds: float) -> dict[str, object]:
    with running_server(*FAKE, *arguments) as server:

        async def work(stub: Stub) -> dict[str, object]:
            bad = Outcomes()
            driving = asyncio.ensure_future(drive(stub, 200, seconds))
            await asyncio.sleep(1)
            await ask(stub, bad, infer_request(MODEL, command_image(command)), timeout_s=60)
            outcomes = await driving
            return {
                "sent": outcomes.sent,
                "failed": outcomes.failed,
                "the_bad_one": next(iter(bad.seconds)),
                "p99_ms": outcomes.p99_ms(),
            }

        return asyncio.run(on(server, work))


def sigterm(quick: bool) -> dict[str, object]:
    """SIGTERM at 70 % load: what was admitted is answered, the rest refused, none lost."""
    with running_server(*REAL) as server:

        async def work(stub: Stub) -> dict[str, object]:
            rate = 0.7 * await capacity(stub)
            driving = asyncio.ensure_future(drive(stub, rate, 3))
            await asyncio.sleep(1.5)
            server.process.send_signal(signal.SIGTERM)
            outcomes = await driving
            refused = outcomes.failed.get("UNAVAILABLE", 0)
            lost = {code: n for code, n in outcomes.failed.items() if code != "UNAVAILABLE"}
            return {
                "sent": outcomes.sent,
                "answered": outcomes.answered,
                "refused_unavailable": refused,
                "lost": lost,
            }

        result = asyncio.run(on(server, work))
        result["exit_status"] = server.process.wait(60)
        return result


async def probe(address: str, seconds: float) -> None:
    """One caller beside the load, in a process of its own: prints what became of its requests.

    The load generator learns of a refusal only when it is through with the answers that came with it.
    """
    gc.collect()
    gc.freeze()  # no pauses of its own
    async with grpc.aio.insecure_channel(address) as channel:
        outcomes = await drive(Stub(channel), PROBES_PER_S, seconds, seed=2, model=SLOWEST)
    print(json.dumps(outcomes.seconds))


def overload(quick: bool) -> dict[str, object]:
    """Three times the capacity, with a queue of 64 rows.

    The worker has all processors but one, which is for the service and for this load generator: where
    all three fight for the same ones, what is measured is the fight. The slowest model at the slowest
    precision, because a request then costs little beside its computation.
    """
    seconds = 5.0 if quick else 20.0
    threads = ("--threads", str(max(1, cpu_count() - 1)))
    slow = ("--models", SLOWEST, "--device", "cpu", "--engine", "openvino", "--precision", "fp32")
    with running_server(*slow, *threads, "--max-queue-rows", "64") as server:

        async def work(stub: Stub) -> dict[str, object]:
            able = await capacity(stub, model=SLOWEST)
            prober = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.faults", "--probe", server.address),
                *("--seconds", str(seconds)),
                stdout=asyncio.subprocess.PIPE,
            )
            os.nice(10)  # it stands in for other machines: the service and the prober go first
            outcomes = await drive(stub, 3 * able, seconds, model=SLOWEST)
            probed = Outcomes(json.loads((await prober.communicate())[0]))
            return {
                "capacity_per_s": able,
                "offered_per_s": outcomes.sent / seconds,
                "goodput_ratio": outcomes.answered / seconds / able,
                "failed": outcomes.failed,
                "accepted_p99_ms": outcomes.p99_ms(),
                "refusals_probed": len(probed.seconds.get("RESOURCE_EXHAUSTED", [])),
                "refusal_p50_ms": probed.quantile_ms(0.5, "RESOURCE_EXHAUSTED"),
                "refusal_p99_ms": probed.quantile_ms(0.99, "RESOURCE_EXHAUSTED"),
            }

        return asyncio.run(on(server, work))


def soak(quick: bool) -> dict[str, object]:
    """70 % load for ten minutes: errors, and growth of the resident memory after the first tenth."""
    seconds = 30.0 if quick else 600.0
    with running_server(*REAL) as server:

        async def work(stub: Stub) -> dict[str, object]:
            rate = 0.7 * await capacity(stub)
            first = await drive(stub, rate, seconds / 10)
            before = resident_bytes(server)
            rest = await drive(stub, rate, seconds * 9 / 10, seed=1)
            after = resident_bytes(server)
            return {
                "rate_per_s": rate,
                "sent": first.sent + rest.sent,
                "failed": first.failed | rest.failed,
                "p99_ms": rest.p99_ms(),
                "resident_mb": after / 2**20,
                "growth": after / before - 1,
            }

        return asyncio.run(on(server, work))


def hot_swap(quick: bool) -> dict[str, object]:
    """Weights swapped again and again at 70 % load."""
    seconds = 10.0 if quick else 30.0
    with running_server(*REAL, "--model-control", "explicit") as server:

        async def work(stub: Stub) -> dict[str, object]:
            rate = 0.7 * await capacity(stub)
            driving = asyncio.ensure_future(drive(stub, rate, seconds))
            swaps = 0
            while not driving.done():
                await stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name=MODEL))
                swaps += 1
                await asyncio.sleep(1)
            outcomes = await driving
            return {
                "swaps": swaps,
                "rate_per_s": rate,
                "sent": outcomes.sent,
                "failed": outcomes.failed,
                "p99_ms": outcomes.p99_ms(),
            }

        return asyncio.run(on(server, work))


SCENARIOS = {
    "kill": kill_workers,
    "hang": hanging_request,
    "poison": poison_request,
    "sigterm": sigterm,
    "swap": hot_swap,
    "overload": overload,
    "soak": soak,
}


def main() -> None:
    """Run the scenarios and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default=",".join(SCENARIOS), help="scenarios, separated by commas"
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--probe", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=5.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.probe:
        asyncio.run(probe(args.probe, args.seconds))
        return
    print(
        f"{cpu_name()}, {cpu_count()} processors, Python {platform.python_version()}\n", flush=True
    )
    results = {}
    for name in args.only.split(","):
        scenario = SCENARIOS[name]
        results[name] = scenario(args.quick)
        print(f"{name}: {(scenario.__doc__ or '').partition(chr(10))[0]}")
        for key, value in results[name].items():
            shown = f"{value:,.3g}" if isinstance(value, float) else value
            print(f"  {key:20} {shown}")
        print(flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
