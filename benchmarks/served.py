"""Images per second as served, side by side: ``python -m benchmarks.served``.

Servers run one at a time on the same processors as the callers: rootserve (the same engine in each precision
asked for), a naive server (``benchmarks/reference/naive_server.py``), and PyTriton with the same engine where
an environment has it (``--pytriton DIR/bin/python``, made by ``benchmarks/reference/setup DIR``). ``raw`` is
the engine in a loop, without a server. All take turns within each round, so that a machine whose speed drifts
is the same machine for all; compared are ratios within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2_grpc

from benchmarks.server_process import serving
from rootmodels.weights_info import weights_path
from server.engines.base import LoadSpec, Precision
from server.engines.registry import get_loader
from server.machine import cpu_count, cpu_name
from tests.support.server_process import infer_request


@dataclass(frozen=True, slots=True)
class Load:
    """``callers`` in a closed loop, each with one request of ``rows`` images under way."""

    callers: int
    rows: int

    @property
    def name(self) -> str:
        """For the table."""
        images = "1 image" if self.rows == 1 else f"{self.rows} images"
        return f"{self.callers} x {images}"


LOADS = (Load(1, 1), Load(8, 1), Load(32, 1), Load(64, 1), Load(4, 16))


def random_images(rows: int) -> NDArray[np.uint8]:
    """The same ones every time."""
    return np.random.default_rng(0).integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8)


async def generate(address: str, model: str, load: Load, seconds: float) -> float:
    """Images per second that the callers get answered."""
    request = infer_request(model, random_images(load.rows))
    answered = 0

    async def call(stub: Any, end_s: float) -> None:
        nonlocal answered
        while time.perf_counter() < end_s:
            await stub.ModelInfer(request)
            answered += load.rows

    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        warm_s = time.perf_counter() + min(0.5, seconds / 4)
        await asyncio.gather(*(call(stub, warm_s) for _ in range(load.callers)))
        answered = 0
        began_s = time.perf_counter()
        await asyncio.gather(*(call(stub, began_s + seconds) for _ in range(load.callers)))
        return answered / (time.perf_counter() - began_s)


def raw(model: str, precision: Precision, rows: int, threads: int, seconds: float) -> float:
    """Images per second of the engine in a loop."""
    spec = LoadSpec(model, weights_path(model), "cpu", threads, precision)
    engine = get_loader("openvino")(spec)
    images = random_images(rows)
    for _ in range(5):
        engine.run(images)
    computed = 0
    began_s = time.perf_counter()
    while (elapsed_s := time.perf_counter() - began_s) < seconds:
        engine.run(images)
        computed += rows
    return computed / elapsed_s


def command(server: str, args: argparse.Namespace) -> list[str]:
    """What starts a server."""
    kind, _, precision = server.partition(" ")
    match kind:
        case "naive":
            return [
                sys.executable,
                "-m",
                "benchmarks.reference.naive_server",
                "--model",
                args.model,
            ]
        case "PyTriton":
            script = str(Path(__file__).parent / "reference" / "pytriton_server.py")
            threads = ["--threads", str(args.threads)]
            return [
                args.pytriton,
                script,
                "--model",
                args.model,
                "--precision",
                precision,
                *threads,
            ]
        case _:
            start = [sys.executable, "-m", "server", "--port", "0", "--metrics-port", "0"]
            start += ["--models", args.model, "--device", "cpu", "--threads", str(args.threads)]
            return [*start, "--engine", "openvino", "--precision", precision]


def one_round(servers: list[str], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Images per second by server and load, one server after the other."""
    found: dict[str, dict[str, float]] = {}
    for server in servers:
        if server.startswith("raw "):
            precision: Any = server.removeprefix("raw ")
            call = [sys.executable, "-m", "benchmarks.served", "--raw", precision]
            call += ["--model", args.model, "--threads", str(args.threads)]
            call += ["--seconds", str(args.seconds)]
            found[server] = json.loads(subprocess.check_output(call))
            continue
        with serving(command(server, args)) as process:
            found[server] = {}
            for load in LOADS:
                call = [sys.executable, "-m", "benchmarks.served", "--generate", process.address]
                call += ["--model", args.model, "--seconds", str(args.seconds)]
                call += ["--callers", str(load.callers), "--rows", str(load.rows)]
                found[server][load.name] = float(subprocess.check_output(call))
    return found


def table(rounds: list[dict[str, dict[str, float]]], base: str) -> list[str]:
    """A Markdown table: medians, and below them the ratios to ``base`` with their range."""
    loads = [load.name for load in LOADS]
    lines = ["| server | " + " | ".join(loads) + " |", "|---|" + "---|" * len(loads)]
    for server in rounds[0]:
        cells = []
        for load in loads:
            found = [one[server][load] for one in rounds if load in one[server]]
            cells.append(f"{statistics.median(found):,.0f}" if found else "-")
        lines.append(f"| {server} | " + " | ".join(cells) + " |")
    for server in rounds[0]:
        if server == base:
            continue
        cells = []
        for load in loads:
            ratios = [one[base][load] / one[server][load] for one in rounds if load in one[server]]
            spread = f"{min(ratios):.2f}-{max(ratios):.2f}" if ratios else ""
            cells.append(f"{statistics.median(ratios):.2f} ({spread})" if ratios else "-")
        lines.append(f"| {base} / {server} | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    """Measure; with ``--generate`` or ``--raw``, be one of the processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nin-root-16")
    parser.add_argument(
        "--precisions", default="bf16,int8", help="of rootserve; the first is raw's"
    )
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="per load and server")
    parser.add_argument("--pytriton", metavar="PYTHON", help="interpreter that has PyTriton")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--generate", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--callers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--raw", metavar="PRECISION", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.generate:
        load = Load(args.callers, args.rows)
        print(uvloop.run(generate(args.generate, args.model, load, args.seconds)))
        return 0
    if args.raw:
        rates = {
            load.name: raw(args.model, args.raw, load.rows, args.threads, args.seconds)
            for load in (LOADS[0], LOADS[-1])
        }
        print(json.dumps(rates))
        return 0
    precisions = args.precisions.split(",")
    servers = [f"rootserve {precision}" for precision in precisions]
    servers += [f"raw {precisions[0]}", "naive"]
    if args.pytriton:
        servers.append(f"PyTriton {precisions[0]}")
    machine = {
        "cpu": cpu_name(),
        "processors": cpu_count(),
        "threads": args.threads,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("openvino", "torch", "grpcio")},
        "load": os.getloadavg()[0],
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    rounds = []
    for number in range(args.rounds):
        order = servers if number % 2 == 0 else servers[::-1]
        found = one_round(order, args)
        rounds.append({server: found[server] for server in servers})
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
    print(f"\nimages/s, {args.model}, median of {args.rounds} rounds; ratios with their range\n")
    print("\n".join(table(rounds, servers[0])))
    if args.json:
        content = {"machine": machine, "model": args.model, "rounds": rounds}
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
