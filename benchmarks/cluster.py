"""What three servers behind Envoy lose when some die, stop and restart, and what the proxy costs.

`python -m benchmarks.cluster` takes a quarter of an hour, `--quick` five minutes; `--only` chooses. The
servers have the engine `fake`, which takes 20 ms for each image, unless a scenario's name begins with `real`:
three that compute would measure how they share few processors. `--perf-analyzer PROGRAM` is one more caller
while servers are killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import tritonclient.grpc as triton

from benchmarks import cluster_scenarios as scenarios
from benchmarks.cluster_scenarios import FAKE, MODEL, SERVICE_MS, Cluster, Figures
from rootmodels.processor import cpu_name
from rootserve.server.machine import cpu_count
from rootserve.server.observers.metrics_state import process_usage
from tests.support.envoy import Envoy, running_envoy
from tests.support.nodes import running_nodes
from tests.support.server_process import infer_request, plain_images

REAL = ("--device", "cpu", "--models", MODEL, "--threads", "1")
GRACE = ("--grace-s", "2")


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    quick: bool
    analyzer: str | None


@dataclass
class OtherCallers:
    """tritonclient in a thread, `rootserve load` and perf_analyzer; each sends some requests a second."""

    address: str
    seconds: float
    analyzer: str | None
    figures: Figures = field(default_factory=dict)

    def run(self) -> None:
        """All of them side by side; returns when they have ended."""
        threads = [threading.Thread(target=self._tritonclient), threading.Thread(target=self._load)]
        if self.analyzer:
            threads.append(threading.Thread(target=self._perf_analyzer))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _tritonclient(self) -> None:
        tensor = triton.InferInput("images", [1, 3, 32, 32], "UINT8")
        tensor.set_data_from_numpy(plain_images(1))
        answered, failed = 0, []
        with triton.InferenceServerClient(self.address) as client:
            end_s = time.monotonic() + self.seconds
            while time.monotonic() < end_s:
                try:
                    client.infer(MODEL, [tensor], client_timeout=20)
                    answered += 1
                except triton.InferenceServerException as error:
                    failed.append(str(error))
                time.sleep(0.1)
        self.figures["tritonclient"] = {"answered": answered, "failed": failed}

    def _load(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "load.json"
            command = [sys.executable, "-m", "rootserve.client", "load", "--server", self.address]
            command += ["-m", MODEL, "-r", "10", "-d", str(self.seconds), "--warmup", "0"]
            command += ["--json", str(report)]
            subprocess.run(command, capture_output=True, check=True, timeout=self.seconds + 120)
            content = json.loads(report.read_text())
        self.figures["rootserve load"] = {
            "answered": content["succeeded"],
            "failed": content["errors"],
        }

    def _perf_analyzer(self) -> None:
        assert self.analyzer is not None
        command = [self.analyzer, "-m", MODEL, "-u", self.address, "-i", "grpc"]
        command += ["--request-rate-range", "10", "--measurement-interval", "5000"]
        # Told the version, it does not look for it in the servers' statistics: each asks another server.
        command += ["--stability-percentage", "999", "-x", "1"]
        runs, failed = 0, []
        end_s = time.monotonic() + self.seconds - 20
        while runs == 0 or time.monotonic() < end_s:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=self.seconds + 120
            )
            runs += 1
            if done.returncode or "Failed" in done.stdout + done.stderr:
                failed.append((done.stdout + done.stderr)[-500:])
        self.figures["perf_analyzer"] = {"runs": runs, "failed": failed}


@contextmanager
def fakes(*arguments: str, load: float = 0.6, envoy: tuple[str, ...] = ()) -> Iterator[Cluster]:
    """Three servers with the fake engine, and callers that want ``load`` of what they can."""
    with (
        running_nodes(3, *FAKE, *arguments) as nodes,
        running_envoy([node.address for node in nodes], *envoy) as proxy,
    ):
        yield scenarios.cluster_of_fakes(nodes, proxy, load)


async def _with_others(cluster: Cluster, asked: Asked, seconds: float, every_s: float) -> Figures:
    others = OtherCallers(cluster.envoy.address, seconds, asked.analyzer)
    waiting = asyncio.ensure_future(asyncio.to_thread(others.run))
    figures = await scenarios.kills(cluster, seconds, every_s)
    await waiting
    return {**figures, **others.figures}


def kills(asked: Asked) -> Figures:
    """Kill -9 of a server and its workers every 10 s at 60 % of capacity; four kinds of callers."""
    seconds, every_s = (20.0, 5.0) if asked.quick else (60.0, 10.0)
    # The other callers send images that take no time: the load is that of the one that is timed.
    with fakes() as cluster:
        return asyncio.run(_with_others(cluster, asked, seconds, every_s))


def real_kills(asked: Asked) -> Figures:
    """The same with nin-root-16, at 60 % of what three servers on this machine can."""
    seconds, every_s = (15.0, 5.0) if asked.quick else (60.0, 10.0)
    with (
        running_nodes(3, *REAL) as nodes,
        running_envoy([node.address for node in nodes]) as envoy,
    ):
        request = infer_request(MODEL, plain_images(1, 7))
        capacity = _closed_loop(envoy.address)
        cluster = Cluster(nodes, envoy, request, 0.6 * capacity)
        figures = asyncio.run(scenarios.kills(cluster, seconds, every_s))
        return {"capacity_per_s": capacity, **figures}


def _closed_loop(address: str) -> float:
    """Requests per second that 8 callers in another process get answered."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "load.json"
        command = [sys.executable, "-m", "rootserve.client", "load", "--server", address]
        command += ["-m", MODEL, "-c", "8", "-d", "4", "--json", str(report)]
        subprocess.run(command, capture_output=True, check=True, timeout=120)
        return float(json.loads(report.read_text())["throughput_requests_per_s"])


def one_of_two(_: Asked) -> Figures:
    """Kill -9 of one of two servers while 438 calls are under way."""
    with (
        running_nodes(2, *FAKE, "--max-queue-rows", "4096") as nodes,
        running_envoy([node.address for node in nodes]) as envoy,
    ):
        cluster = scenarios.cluster_of_fakes(nodes, envoy)
        return asyncio.run(scenarios.one_of_two_dies(cluster, 438))


def rolling(asked: Asked) -> Figures:
    """SIGTERM to each of three servers in turn, with a grace of 2 s."""
    with fakes(*GRACE) as cluster:
        return asyncio.run(scenarios.rolling_restart(cluster, 1.0 if asked.quick else 5.0))


def rolling_without_grace(asked: Asked) -> Figures:
    """The same without a grace: what a server refuses while it drains is tried again."""
    with fakes() as cluster:
        return asyncio.run(scenarios.rolling_restart(cluster, 1.0 if asked.quick else 5.0))


def stops(asked: Asked) -> Figures:
    """SIGSTOP of one server for 10 s, pinged every 5 s as the configuration has it."""
    with fakes() as cluster:
        return asyncio.run(scenarios.one_stops(cluster, 10, 15 if asked.quick else 60))


def stops_pinged(asked: Asked) -> Figures:
    """The same with pings every second, which the servers are told to permit."""
    envoy = ("--ping-interval-s", "1")
    with fakes("--min-ping-interval-s", "1", envoy=envoy) as cluster:
        return asyncio.run(scenarios.one_stops(cluster, 10, 15 if asked.quick else 60))


def joins(_: Asked) -> Figures:
    """A third server starts beside two."""
    with (
        running_nodes(3, *FAKE, started=2) as nodes,
        running_envoy([node.address for node in nodes], healthy=2) as envoy,
    ):
        cluster = scenarios.cluster_of_fakes(nodes, envoy, 0.4)
        return asyncio.run(scenarios.one_joins(cluster, 30))


def overload(asked: Asked) -> Figures:
    """Three times the capacity, with queues of 16 rows."""
    limits = ("--max-batch-rows", "4", "--max-queue-rows", "16")
    with fakes(*limits, load=1.0) as cluster:
        return asyncio.run(scenarios.overload(cluster, 5 if asked.quick else 20, 3))


def stream(_: Asked) -> Figures:
    """A server with an open stream shuts down."""
    with fakes(*GRACE) as cluster:
        return asyncio.run(scenarios.stream_in_a_drain(cluster, 100))


def price(asked: Asked) -> Figures:
    """One server (fake, no service time) through Envoy against direct, in turns."""
    return _price(asked, FAKE)


def real_price(asked: Asked) -> Figures:
    """One server with nin-root-16 through Envoy against direct, in turns."""
    return _price(asked, REAL)


def _price(asked: Asked, arguments: tuple[str, ...]) -> Figures:
    figures: Figures = {}
    with (
        running_nodes(1, *arguments) as (node,),
        running_envoy([node.address]) as envoy,
        tempfile.TemporaryDirectory() as folder,
    ):
        for callers in (1, 16):
            report = Path(folder) / f"{callers}.json"
            command = [sys.executable, "-m", "rootserve.client", "load", "--server", node.address]
            command += ["-m", MODEL, "-c", str(callers), "--versus", f"{MODEL}@{envoy.address}"]
            command += ["-d", "2", "--rounds", "3" if asked.quick else "5", "--json", str(report)]
            subprocess.run(command, capture_output=True, check=True, timeout=300)
            figures[f"callers_{callers}"] = _compared(json.loads(report.read_text()))
        figures["envoy_cpu_us_per_request"] = _cpu_us_per_request(envoy)
    return figures


def _cpu_us_per_request(envoy: Envoy) -> float:
    """Processor time that Envoy has used since its start, which other programs change less than times."""
    usage = process_usage(envoy.process.pid)
    assert usage is not None, "Envoy has ended"
    return 1e6 * usage[0] / envoy.figure("envoy_cluster_upstream_rq_total")


def _compared(report: dict[str, Any]) -> Figures:
    """Medians of the runs, direct (A) and through Envoy (B), and B to A with its interval of 95 %."""
    figures: Figures = {}
    for side, label in (("direct", "A"), ("envoy", "B")):
        runs = [run for run in report["levels"] if run["label"].startswith(f"{label}:")]
        rates = [run["throughput_requests_per_s"] for run in runs]
        figures[side] = {
            "requests_per_s": median(rates),
            "p50_ms": 1e3 * median(run["response_time_s"]["p50"] for run in runs),
        }
    for name, ratio in report["pairs"]["ratios"].items():
        figures[f"ratio_{name}"] = [ratio["ratio"], ratio["low"], ratio["high"]]
    return figures


SCENARIOS: dict[str, Callable[[Asked], Figures]] = {
    "kills": kills,
    "one-of-two": one_of_two,
    "rolling": rolling,
    "rolling-without-grace": rolling_without_grace,
    "stops": stops,
    "stops-pinged": stops_pinged,
    "joins": joins,
    "overload": overload,
    "stream": stream,
    "price": price,
    "real-price": real_price,
    "real-kills": real_kills,
}


def main() -> None:
    """Run the scenarios, print their figures and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SCENARIOS), help="separated by commas")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--perf-analyzer", metavar="PROGRAM")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    names = args.only.split(",")
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        parser.error(f"--only: there is no {unknown[0]}; expected some of {', '.join(SCENARIOS)}")
    machine = f"{cpu_name()}, {cpu_count()} processors, Python {platform.python_version()}"
    print(f"{machine}; the fake engine takes {SERVICE_MS} ms for an image\n", flush=True)
    results: dict[str, object] = {"machine": machine, "quick": args.quick}
    for name in names:
        scenario = SCENARIOS[name]
        figures = scenario(Asked(args.quick, args.perf_analyzer))
        results[name] = figures
        print(f"{name}: {scenario.__doc__}")
        for key, value in figures.items():
            shown = f"{value:,.3g}" if isinstance(value, float) else value
            print(f"  {key:24} {shown}")
        print(flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
