"""A step of load on a live server, and the same simulated: ``python -m benchmarks.policies_live``.

The rate goes from 0.3 to 1.2 of what the server computes of one variant, and back, with deadlines of 100 ms:
once for the family, once for that variant, once for the fastest, in turns, round by round; what the server
computes is measured before each of them. After each run of the family the server's latency table is taken,
with which the steps of the last one are simulated. Prints Markdown tables. The load generator has the
server's processors: with many images in a request, it leaves it most of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rounds import machine
from benchmarks.server_process import SERVER_COMMAND, serving
from rootserve.server.machine import cpu_count

_FAMILY = "nin-auto"
_PATIENCE_S = 300
_SHARES = (0.3, 1.2, 0.3)
_MEASURED_S = 2.0


def rootserve(*arguments: object) -> str:
    """What a command of the client prints; exit code 1 is an objective that was missed."""
    command = [sys.executable, "-m", "rootserve.client", *(str(each) for each in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    if done.returncode not in {0, 1}:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def load(address: str, folder: Path, model: str, *options: object) -> dict[str, Any]:
    """The report of a run."""
    path = folder / "report.json"
    rootserve("load", "--server", address, "-m", model, *options, "--json", path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def in_turns(models: Sequence[str], number: int) -> Sequence[str]:
    """``models``, of which another one is the first in each round."""
    first = number % len(models)
    return [*models[first:], *models[:first]]


def told(values: Sequence[float | None]) -> str:
    """The median, the least and the most."""
    known = [each for each in values if each is not None]
    if not known:
        return "-"
    return f"{statistics.median(known):.4f} ({min(known):.4f} to {max(known):.4f})"


def main() -> int:
    """Measure, simulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="nin-orig,nin-root-2,nin-root-4,nin-tree-16")
    parser.add_argument("--of", default="nin-orig", help="the variant whose capacity counts")
    parser.add_argument("--fastest", default="nin-tree-16")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4, help="of each step")
    parser.add_argument("--deadline-ms", type=float, default=100)
    parser.add_argument("--rows", type=int, default=16, help="images in a request")
    args = parser.parse_args()
    sizes = ("--rows", args.rows)
    wanted = ("--deadline-ms", f"{args.deadline_ms:g}", *sizes)
    live: dict[str, list[dict[str, Any]]] = defaultdict(list)
    capacities: list[float] = []
    with (
        tempfile.TemporaryDirectory() as name,
        serving([*SERVER_COMMAND, "--models", args.models]) as server,
    ):
        folder = Path(name)
        table, simulated = folder / "latency.json", ""
        for number in range(args.rounds):
            for model in in_turns((_FAMILY, args.of, args.fastest), number):
                closed = load(server.address, folder, args.of, "-c", 8, "-d", _MEASURED_S, *sizes)
                capacities.append(closed["throughput_requests_per_s"])
                steps = ",".join(
                    f"{share * capacities[-1]:.0f}x{args.seconds:g}" for share in _SHARES
                )
                found = load(server.address, folder, model, "-r", steps, *wanted, "--warmup", 0)[
                    "attained"
                ]
                live[model].append(found)
                if model == _FAMILY:
                    simulated = steps
                    table.write_text(rootserve("latency", "--server", server.address, "--json"))
                print(
                    f"round {number + 1}, {steps}, {model}: {found['attainment']:.4f}",
                    file=sys.stderr,
                )
        policies = ("rootserve", f"static {args.of}", f"static {args.fastest}")
        path = folder / "simulated.json"
        options = ("--latency", table, "-r", simulated, *wanted, "--policy", ",".join(policies))
        rootserve("simulate", *options, "--json", path)
        runs = json.loads(path.read_text())["runs"]
    print(
        f"{machine('cpu', cpu_count())}; {args.rounds} rounds; {args.of}: {min(capacities):.0f} to "
        f"{max(capacities):.0f} requests/s of {args.rows}\n"
    )
    print("| live | attainment | from arrival on | accuracy of what was met |\n|---|---|---|---|")
    for model, each in live.items():
        figures = (
            told([found[of] for found in each])
            for of in ("attainment", "attainment_from_arrival", "mean_accuracy")
        )
        print(f"| {model} | {' | '.join(figures)} |")
    print(f"\n| simulated, {simulated} | attainment | accuracy of what was met |\n|---|---|---|")
    for run in runs:
        summary = run["summary"]
        accuracy = summary["mean_accuracy"] or 0.0
        print(f"| {run['policy']} | {summary['attainment']:.4f} | {accuracy:.4f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
