"""How soon an arrangement has settled when the callers change: ``python -m benchmarks.settling``.

A server of each arrangement runs; one at a time gets one caller, then many, then one again, in turns,
forwards and backwards. Time is cut into windows; of each window counts the median over the rounds. A server
has settled once no window any more is off by more than a quarter from what it does in the second half of
that phase: in images per second where there are many callers, in the time of a request where there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc
import uvloop
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from tritonclient.grpc import service_pb2_grpc

from benchmarks.closed_loop import random_images
from benchmarks.rounds import machine
from benchmarks.server_process import SERVER_COMMAND, Server, serving
from rootserve.server.machine import cpu_count
from tests.support.server_process import infer_request

WINDOW_S = 0.1
_OFF = 0.25
_COLOURS = {"adaptive": "#1668b8", "latency": "#c2570c", "throughput": "#2b8a3e"}


class Answer(NamedTuple):
    """One that came ``at_s`` seconds after the first caller, and took ``took_s``."""

    at_s: float
    took_s: float


@dataclass(frozen=True, slots=True)
class Windows:
    """Of one server, for each window: images per second, and the median time of a request in milliseconds."""

    rates: list[float]
    times_ms: list[float]


async def step(address: str, model: str, callers: int, phase_s: float) -> list[Answer]:
    """One caller, then ``callers``, then one again, each for ``phase_s``."""
    request = infer_request(model, random_images(1))
    answers: list[Answer] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        await stub.ModelInfer(request)
        began_s = time.perf_counter()

        async def call(from_s: float, until_s: float) -> None:
            await asyncio.sleep(began_s + from_s - time.perf_counter())
            while (asked_s := time.perf_counter() - began_s) < until_s:
                await stub.ModelInfer(request)
                at_s = time.perf_counter() - began_s
                answers.append(Answer(at_s, at_s - asked_s))

        many = [call(phase_s, 2 * phase_s) for _ in range(callers - 1)]
        await asyncio.gather(call(0.0, 3 * phase_s), *many)
    return answers


def cut(rounds: Sequence[Sequence[Answer]], seconds: float) -> Windows:
    """The medians over ``rounds`` of what each window of ``seconds`` had."""
    count = round(seconds / WINDOW_S)
    rates: list[list[float]] = [[] for _ in range(count)]
    times: list[list[float]] = [[] for _ in range(count)]
    for answers in rounds:
        found: list[list[float]] = [[] for _ in range(count)]
        for answer in answers:
            if answer.at_s < seconds:
                found[int(answer.at_s / WINDOW_S)].append(1000 * answer.took_s)
        for number, took in enumerate(found):
            rates[number].append(len(took) / WINDOW_S)
            if took:
                times[number].append(statistics.median(took))
    return Windows(
        [statistics.median(each) for each in rates],
        [statistics.median(each) if each else float("nan") for each in times],
    )


def settled_s(values: Sequence[float]) -> float:
    """After how many seconds ``values``, of the windows of a phase, stay near those of its second half."""
    last = statistics.median(values[len(values) // 2 :])
    off = [number for number, value in enumerate(values) if not abs(value / last - 1) <= _OFF]
    return WINDOW_S * (off[-1] + 1 if off else 0)


def settling(windows: Windows, phase_s: float) -> tuple[float, float]:
    """Seconds until it has settled, after the step to many callers and after the one back."""
    phase = round(phase_s / WINDOW_S)
    return (
        settled_s(windows.rates[phase : 2 * phase]),
        settled_s(windows.times_ms[2 * phase : 3 * phase]),
    )


def measure(args: argparse.Namespace) -> dict[str, Windows]:
    """All servers, in turns."""
    found: dict[str, list[list[Answer]]] = {name: [] for name in args.servers.split(",")}
    servers: dict[str, Server] = {}
    with ExitStack() as stack:
        for name in found:
            command = [*SERVER_COMMAND, "--models", args.model, "--device", "cpu"]
            command += ["--precision", args.precision, "--optimize-for", name]
            servers[name] = stack.enter_context(serving(command))
        for number in range(args.rounds):
            for name in reversed(found) if number % 2 else found:
                load = step(servers[name].address, args.model, args.callers, args.seconds)
                found[name].append(uvloop.run(load))
    return {name: cut(rounds, 3 * args.seconds) for name, rounds in found.items()}


def draw(found: Mapping[str, Windows], phase_s: float, callers: int, path: Path) -> None:
    """Images per second and the time of a request, over the time of the step."""
    figure = Figure(figsize=(8, 5), layout="constrained", dpi=130)
    above, below = figure.subplots(2, 1, sharex=True)
    for name, windows in found.items():
        at_s = [(number + 0.5) * WINDOW_S for number in range(len(windows.rates))]
        style = {"color": _COLOURS.get(name), "lw": 2 if name == "adaptive" else 1.2}
        above.plot(at_s, windows.rates, label=name, **style)
        below.plot(at_s, windows.times_ms, **style)
    above.set_ylabel("images/s")
    below.set_ylabel("ms per request, median")
    below.set_yscale("log")
    below.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    below.yaxis.set_major_formatter("{x:g}")
    below.yaxis.set_minor_locator(NullLocator())
    below.set_xlabel("seconds")
    for axes in (above, below):
        axes.axvspan(phase_s, 2 * phase_s, color="#f0f0f0", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        axes.set_xlim(0, 3 * phase_s)
    above.set_title(f"1 caller, {callers} callers, 1 caller", fontsize=10)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(path)


def main() -> int:
    """Measure, tell and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--servers", default="adaptive,latency,throughput")
    parser.add_argument("--model", default="nin-root-16")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each of the three phases")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    found = measure(args)
    print(f"{machine('cpu', cpu_count())}, {args.model} {args.precision}, {args.rounds} rounds.\n")
    print(f"| server | settled with {args.callers} callers after | with one again after |")
    print("|---|---|---|")
    for name, windows in found.items():
        up_s, back_s = settling(windows, args.seconds)
        print(f"| {name} | {up_s:.1f} s | {back_s:.1f} s |")
    if args.json:
        told = {name: {"rates": w.rates, "times_ms": w.times_ms} for name, w in found.items()}
        args.json.write_text(json.dumps(told) + "\n")
    if args.figure:
        draw(found, args.seconds, args.callers, args.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
