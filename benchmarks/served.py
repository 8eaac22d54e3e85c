"""Images per second as served, side by side: ``python -m benchmarks.served``.

All servers run, on the same processors as the callers; one at a time is loaded, for a second or two, in
turns, forwards and backwards, so that a machine whose speed drifts is the same machine for all. Compared are
ratios within a round.

``--servers`` names them, separated by commas; the first is what the others are compared with:

rootserve PRECISION [MODEL]   the OpenVINO engine in this service, as it comes
adaptive PRECISION [MODEL]    the same with --optimize-for adaptive; so latency and throughput
other PRECISION [MODEL]       another version of this service, needs --other PROGRAM, its rootserve-server
KIND/ROWS PRECISION [MODEL]   one of these, with --max-batch-rows ROWS
raw PRECISION                 the engine in a loop, without a server
bare PRECISION                the engine behind grpc.aio alone (benchmarks/reference/bare_server.py)
naive                         grpcio and PyTorch as they come (benchmarks/reference/naive_server.py)
PyTriton PRECISION            the same engine behind Triton, needs --pytriton PYTHON
Ray PRECISION                 the same engine behind Ray Serve, needs --ray PYTHON
LitServe PRECISION            the same engine behind LitServe, over HTTP, needs --litserve PYTHON

The environments of the last three are made by ``benchmarks/reference/setup DIR NAME``. The callers are
grpc.aio in one process, or NVIDIA's perf_analyzer (``--perf-analyzer PROGRAM``), which takes less of the
processors; LitServe's are aiohttp.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

from benchmarks import perf_analyzer
from benchmarks.closed_loop import Load, random_images
from benchmarks.rounds import machine, spread
from benchmarks.server_process import SERVER_COMMAND, SERVER_OPTIONS, Server, serving
from rootmodels.weights_info import weights_path
from rootserve.server.engines.base import LoadSpec, Precision
from rootserve.server.engines.registry import get_loader
from rootserve.server.machine import cpu_count

LOADS = (Load(1, 1), Load(8, 1), Load(32, 1), Load(64, 1), Load(4, 16))
RAW_LOADS = (Load(1, 1), Load(4, 16))
"""Without a server there are no callers: an image at a time, or 16."""

ARRANGEMENTS = ("adaptive", "latency", "throughput")
SERVICES = ("rootserve", *ARRANGEMENTS, "other")
OTHERS = ("PyTriton", "Ray", "LitServe")
DEFAULT = "adaptive bf16,latency bf16,throughput bf16,rootserve int8,raw bf16,bare bf16,naive"
REFERENCE = Path(__file__).parent / "reference"

Round = dict[str, float]
"""Images per second by server."""


def raw(model: str, precision: Precision, rows: int, seconds: float) -> float:
    """Images per second of the engine in a loop."""
    spec = LoadSpec(model, weights_path(model), "cpu", cpu_count(), precision)
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


class Contender:
    """One of ``--servers``.

    Raises:
        ValueError: if there is none of that name, or no interpreter for it.
    """

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name = name
        kind, *rest = name.split()
        self.kind, _, self.max_rows = kind.partition("/")
        self.precision = rest[0] if rest else "fp32"
        self.model = rest[1] if len(rest) > 1 else args.model
        self.server: Server | None = None
        self._args = args
        kinds = (*SERVICES, "raw", "bare", "naive", *OTHERS)
        if self.kind not in kinds or self.precision not in get_args(Precision) or len(rest) > 2:
            raise ValueError(
                f"--servers: {name!r} came; expected KIND PRECISION [MODEL], KIND of {kinds}"
            )
        if "/" in kind and not (self.kind in SERVICES and self.max_rows.isdecimal()):
            raise ValueError(f"--servers: {name!r} came; only {SERVICES} take ROWS, a number")
        if self.kind == "naive" and self.precision != "fp32":
            raise ValueError(f"--servers: {name!r} came; naive computes in fp32")
        if self.kind in OTHERS and not self._python():
            raise ValueError(f"--servers: {name!r} needs --{self.kind.lower()} PYTHON")
        if self.kind == "other" and not args.other:
            raise ValueError(f"--servers: {name!r} needs --other PROGRAM")

    def _python(self) -> str | None:
        found: str | None = getattr(self._args, self.kind.lower())
        return found

    def command(self) -> list[str]:
        """What starts it."""
        model = ["--model", self.model]
        if self.kind == "naive":
            return [sys.executable, "-m", "benchmarks.reference.naive_server", *model]
        if self.kind == "bare":
            module = "benchmarks.reference.bare_server"
            return [sys.executable, "-m", module, *model, "--precision", self.precision]
        if self.kind in OTHERS:
            script = REFERENCE / f"{self.kind.lower()}_server.py"
            return [str(self._python()), str(script), *model, "--precision", self.precision]
        start = list(SERVER_COMMAND)
        if self.kind == "other":
            start = [self._args.other, *SERVER_OPTIONS]
        start += ["--models", self.model, "--device", "cpu", "--engine", "openvino"]
        start += ["--precision", self.precision]
        start += ["--max-batch-rows", self.max_rows] if self.max_rows else []
        return [*start, *(["--optimize-for", self.kind] if self.kind in ARRANGEMENTS else [])]

    def runs(self, load: Load) -> bool:
        """Whether it can be loaded so."""
        return self.kind != "raw" or load in RAW_LOADS

    def start(self, stack: ExitStack) -> None:
        """Start its server, if it has one; ``stack`` will end it."""
        if self.kind != "raw":
            self.server = stack.enter_context(serving(self.command()))
            self._rest()

    def _rest(self) -> None:
        """Have it take nothing from the others: LitServe's idle worker keeps a processor busy."""
        if self.server and self.kind == "LitServe":
            self.server.pause()

    def turn(self, load: Load) -> float:
        """Images per second of one turn, loaded by a process of its own."""
        if self.server is None:
            call = [sys.executable, "-m", "benchmarks.served", "--raw", self.precision]
            return self._images_per_second(call, load)
        self.server.resume()
        try:
            return self._loaded(self.server.address, load)
        finally:
            self._rest()

    def _loaded(self, address: str, load: Load) -> float:
        if self.kind != "LitServe" and (program := self._args.perf_analyzer):
            requests = perf_analyzer.requests_per_second(
                program, address, self.model, load.callers, self._args.seconds, load.rows
            )
            return requests * load.rows
        callers = [sys.executable, "-m", "benchmarks.callers"]
        if self.kind == "LitServe":
            callers = [str(self._python()), str(REFERENCE / "http_callers.py")]
        return self._images_per_second([*callers, address, "--callers", str(load.callers)], load)

    def _images_per_second(self, command: list[str], load: Load) -> float:
        options = ["--model", self.model, "--rows", str(load.rows)]
        options += ["--seconds", str(self._args.seconds)]
        return float(subprocess.check_output([*command, *options]))


def take_turns(contenders: list[Contender], load: Load, rounds: int) -> list[Round]:
    """Each of ``contenders`` in each round; every second round goes backwards."""
    found: list[Round] = []
    for number in range(rounds):
        order = contenders[::-1] if number % 2 else contenders
        rates = {one.name: one.turn(load) for one in order if one.runs(load)}
        found.append(rates)
    return found


def table(names: list[str], results: dict[str, list[Round]]) -> list[str]:
    """A Markdown table: medians, and below them the ratios to the first with their quartiles."""
    lines = ["| server | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    for name in names:
        cells = []
        for rounds in results.values():
            rates = [one[name] for one in rounds if name in one]
            cells.append(f"{statistics.median(rates):,.0f}" if rates else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    base = names[0]
    for name in names[1:]:
        cells = []
        for rounds in results.values():
            ratios = [one[base] / one[name] for one in rounds if name in one]
            cells.append(spread(ratios, 2) if ratios else "-")
        lines.append(f"| {base} / {name} | " + " | ".join(cells) + " |")
    return lines


def measure(contenders: list[Contender], loads: list[Load], rounds: int) -> dict[str, list[Round]]:
    """All of them under all of ``loads``."""
    results = {}
    with ExitStack() as stack:
        for contender in contenders:
            contender.start(stack)
        for load in loads:
            results[load.name] = take_turns(contenders, load, rounds)
            print(f"{load.name} is done", file=sys.stderr, flush=True)
    return results


def main() -> int:
    """Measure; with ``--raw``, be one of the processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nin-root-16")
    parser.add_argument("--servers", default=DEFAULT)
    parser.add_argument("--loads", default=",".join(f"{one.callers}x{one.rows}" for one in LOADS))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.5, help="per load and server")
    parser.add_argument("--perf-analyzer", metavar="PROGRAM")
    parser.add_argument("--other", metavar="PROGRAM", help="rootserve-server of another version")
    for name in OTHERS:
        parser.add_argument(f"--{name.lower()}", metavar="PYTHON", help="interpreter that has it")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--raw", metavar="PRECISION", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.raw:
        print(raw(args.model, args.raw, args.rows, args.seconds))
        return 0
    try:
        contenders = [Contender(name.strip(), args) for name in args.servers.split(",")]
        loads = [Load(*map(int, load.split("x"))) for load in args.loads.split(",")]
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    client = "perf_analyzer" if args.perf_analyzer else "grpc.aio"
    where = f"{machine('cpu', cpu_count())}; callers: {client}; load {os.getloadavg()[0]:.1f}"
    print(where, flush=True)
    results = measure(contenders, loads, args.rounds)
    print(
        f"\nimages/s, {args.model}, callers x images per request, median of {args.rounds} rounds;"
    )
    print("ratios within a round, median and quartiles\n")
    print("\n".join(table([one.name for one in contenders], results)))
    if args.json:
        content = {"machine": where, "model": args.model, "results": results}
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
