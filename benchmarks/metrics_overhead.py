"""What metrics cost: throughput with them and without, in turns: ``python -m benchmarks.metrics_overhead``.

Two servers run side by side, one as shipped, one whose metrics are replaced by an observer that does
nothing. Closed-loop callers load them in turns, A B B A ..., one image per request. The one with metrics
is scraped once in 5 s of load, as ops/prometheus has it. The fake engine computes next to nothing, so that
there the front process, which counts, is the bottleneck: the worst case. Beside the throughput stands the
processor time of the front process per request; and, because a busy machine hides such small differences, how
long it takes in a loop to count one request and to make one page.

``--of explain``: what it costs instead to keep the last requests to explain them (``--explain 1000``), of
requests for a family with a deadline. Both servers have metrics then, and none is scraped.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import time
import timeit
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from benchmarks.server_process import Server, serving
from rootmodels.processor import cpu_name
from rootserve.server import monitoring
from rootserve.server.core.scheduler import Batch, Limits, Scheduler
from rootserve.server.machine import cpu_count
from rootserve.server.main import main as serve
from rootserve.server.observers.events import Observer
from rootserve.server.observers.explain import Explainer
from rootserve.server.observers.metrics import Metrics
from rootserve.server.pending import Report, Story, Timeline
from tests.support.pending import pending
from tests.support.server_process import infer_request, plain_images

MODEL = "nin-root-16"
FAMILY, DEADLINE_MS = "nin-auto", 1000
CALLERS = 16
SCRAPE_S = 5.0


class Silent(Observer):
    """Takes the place of :class:`rootserve.server.observers.metrics.Metrics`."""

    def __init__(self, registry: CollectorRegistry, trace_id: object = None) -> None:
        pass

    def show_model(self, model: str) -> None:
        """Do nothing."""

    def show_worker(self, worker: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn gave."""

    requests_per_s: float
    front_us_per_request: float


def command(of: str, engine: str, *, on: bool) -> list[str]:
    """What starts a server with or without what is measured."""
    start = [sys.executable, "-m", "benchmarks.metrics_overhead", "--of", of, "--serve"]
    return [*start, "with" if on else "without", "--engine", engine]


def asked(of: str) -> oip.ModelInferRequest:
    """What callers send, one image."""
    if of == "metrics":
        return infer_request(MODEL, plain_images(1))
    request = infer_request(FAMILY, plain_images(1))
    request.parameters["deadline_ms"].int64_param = DEADLINE_MS
    return request


async def load(
    server: Server, request: oip.ModelInferRequest, seconds: float, *, scrape: bool
) -> Turn:
    """Load it for so long, and scrape it meanwhile if asked to."""
    end_s = time.perf_counter() + seconds

    async def call(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> int:
        answered = 0
        while time.perf_counter() < end_s:
            await stub.ModelInfer(request)
            answered += 1
        return answered

    scraping = asyncio.to_thread(read, f"http://{server.metrics}/metrics") if scrape else nothing()
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        before_s, began_s = server.cpu_s(), time.perf_counter()
        scraped = asyncio.ensure_future(scraping)
        answered = sum(await asyncio.gather(*(call(stub) for _ in range(CALLERS))))
        await scraped
        elapsed_s, used_s = time.perf_counter() - began_s, server.cpu_s() - before_s
    return Turn(answered / elapsed_s, used_s / answered * 1e6)


async def nothing() -> None:
    """Do nothing."""


def read(url: str) -> None:
    """Fetch a page as Prometheus does."""
    accept = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
    urllib.request.urlopen(urllib.request.Request(url, headers=accept)).close()  # noqa: S310 - ours


def measure_alone() -> None:
    """Print what counting one request, and making one page, takes by itself."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.show_model(MODEL)
    metrics.show_worker("cpu-0")
    timeline = Timeline(1_000_000, 500_000, 2_000_000, 4_000_000, 1, "cpu-0", "fake", "fp32")

    batch = Batch(1, MODEL, "cpu-0", (), 1, 1.0)
    report = Report(1_000_000, 3_000_000)
    one = pending(model=MODEL)

    def request() -> None:
        metrics.transferred("ModelInfer", 3_200, 0)
        metrics.batch_ended(batch, report, [one])
        metrics.answered(one, timeline)
        metrics.transferred("ModelInfer", 0, 200)

    for name, work, number in (
        ("counting one request", request, 20_000),
        ("one page", lambda: generate_latest(registry), 50),
    ):
        times = [seconds / number * 1e6 for seconds in timeit.repeat(work, number=number, repeat=9)]
        low, middle, high = statistics.quantiles(times, n=4)
        print(f"{name}: {middle:.1f} us (middle half {low:.1f} to {high:.1f})")


def explain_alone() -> None:
    """Print what keeping one request, alone in its batch, takes by itself, but for the scheduler's part."""
    explainer = Explainer(1000)
    variants = [f"variant-{number}" for number in range(14)]
    scheduler = Scheduler(Limits())
    timeline = Timeline(1_000_000, 500_000, 2_000_000, 4_000_000, 1, "cpu-0", "fake", "fp32")
    report = Report(1_000_000, 3_000_000)
    one = pending(model=FAMILY)
    batch = Batch(1, variants[0], "cpu-0", (one.request,), 1, 1.0)
    scheduler.worker_ready("cpu-0", variants)

    def request() -> None:
        waiting = scheduler.rows_queued(FAMILY)
        one.story = Story(one.request, waiting, scheduler.rows_in_flight(*variants))
        explainer.batch_ended(batch, report, [one])
        explainer.answered(one, timeline)

    times = [seconds / 20_000 * 1e6 for seconds in timeit.repeat(request, number=20_000, repeat=9)]
    low, middle, high = statistics.quantiles(times, n=4)
    print(f"keeping one request: {middle:.1f} us (middle half {low:.1f} to {high:.1f})")


def told(name: str, ratios: list[float]) -> str:
    """The median of some ratios as a difference, and their middle half."""
    low, middle, high = statistics.quantiles([100 * (ratio - 1) for ratio in ratios], n=4)
    return f"{name} {middle:+.1f} % (middle half {low:+.1f} to {high:+.1f})"


def measure(of: str, engine: str, rounds: int, seconds: float) -> None:
    """Print what metrics, or explanations, cost with one engine."""
    pairs = []
    every = round(SCRAPE_S / seconds)
    with ExitStack() as stack:
        commands = {on: command(of, engine, on=on) for on in (True, False)}
        servers = {on: stack.enter_context(serving(start)) for on, start in commands.items()}
        for number in range(rounds + 1):
            order = (True, False) if number % 2 else (False, True)
            turns = {
                on: asyncio.run(
                    load(
                        servers[on],
                        asked(of),
                        seconds,
                        scrape=of == "metrics" and on and number % every == 0,
                    )
                )
                for on in order
            }
            if number:  # the first round warms up
                pairs.append((turns[True], turns[False]))
    for name, position in ((f"with {of}", 0), ("without", 1)):
        rate = statistics.median(pair[position].requests_per_s for pair in pairs)
        front = statistics.median(pair[position].front_us_per_request for pair in pairs)
        print(f"{engine:9} {name:13} {rate:7.0f} requests/s, front {front:5.0f} us per request")
    rates = [on.requests_per_s / off.requests_per_s for on, off in pairs]
    fronts = [on.front_us_per_request / off.front_us_per_request for on, off in pairs]
    print(f"{engine:9} {told('throughput', rates)}, {told('front', fronts)}, {rounds} pairs\n")


def main() -> int:
    """Measure each engine; with ``--serve``, be one of the servers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--of", choices=["metrics", "explain"], default="metrics")
    parser.add_argument("--engine", choices=["fake", "openvino", "torch"])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--serve", choices=["with", "without"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        start = ["--port", "0", "--metrics-port", "0", "--device", "cpu", "--log-level", "error"]
        start += [
            "--engine",
            options.engine,
            "--models",
            MODEL if options.of == "metrics" else FAMILY,
        ]
        if options.serve == "without" and options.of == "metrics":
            monitoring.Metrics = Silent  # type: ignore[assignment,misc]
        elif options.serve == "with" and options.of == "explain":
            start += ["--explain", "1000"]
        return serve(start)
    print(
        f"{cpu_count()} processors of {cpu_name()}, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )
    measure_alone() if options.of == "metrics" else explain_alone()
    for engine in [options.engine] if options.engine else ["fake", "openvino"]:
        measure(options.of, engine, options.rounds, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
