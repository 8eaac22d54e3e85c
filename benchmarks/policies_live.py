"""A step of load on a live server, and the same simulated: ``python -m benchmarks.policies_live``.

The rate goes from 0.3 to 1.2 of what the server computes of one variant, and back, with deadlines of 100 ms:
once for the family, once for that variant, once for the fastest. Then the server's latency table is taken,
and the same steps are simulated with it. Prints a Markdown table. The load generator has the server's
processors: with several images in a request, it leaves it most of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.rounds import machine
from benchmarks.server_process import SERVER_COMMAND, serving
from rootserve.server.machine import cpu_count

_PATIENCE_S = 300


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


def main() -> int:
    """Measure, simulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="nin-orig,nin-root-2,nin-root-4,nin-tree-16")
    parser.add_argument("--of", default="nin-orig", help="the variant whose capacity counts")
    parser.add_argument("--fastest", default="nin-tree-16")
    parser.add_argument("--seconds", type=float, default=5, help="of each step")
    parser.add_argument("--deadline-ms", type=float, default=100)
    parser.add_argument("--rows", type=int, default=8, help="images in a request")
    args = parser.parse_args()
    command = [*SERVER_COMMAND]
    command += ["--models", args.models]
    rows = []
    sizes = ("--rows", args.rows)
    with tempfile.TemporaryDirectory() as name, serving(command) as server:
        folder = Path(name)
        closed = load(server.address, folder, args.of, "-c", 16, "-d", args.seconds, *sizes)
        capacity = closed["throughput_requests_per_s"]
        steps = ",".join(f"{share * capacity:.0f}x{args.seconds:g}" for share in (0.3, 1.2, 0.3))
        wanted = ("-r", steps, "--deadline-ms", f"{args.deadline_ms:g}", *sizes)
        for model in ("nin-auto", args.of, args.fastest):
            report = load(server.address, folder, model, *wanted, "--warmup", 0)
            found = report["attained"]
            rows.append((f"live, {model}", found["attainment"], found["mean_accuracy"]))
        table = folder / "latency.json"
        table.write_text(rootserve("latency", "--server", server.address, "--json"))
        policies = ("rootserve", f"static {args.of}", f"static {args.fastest}")
        path = folder / "simulated.json"
        options = ("--latency", table, *wanted, "--policy", ",".join(policies), "--json", path)
        rootserve("simulate", *options)
        for run in json.loads(path.read_text())["runs"]:
            summary = run["summary"]
            told = (f"simulated, {run['policy']}", summary["attainment"], summary["mean_accuracy"])
            rows.append(told)
    print(
        f"{machine('cpu', cpu_count())}; {args.of}: {capacity:.0f} requests/s of {args.rows}; steps {steps}\n"
    )
    print("| run | attainment | accuracy of what was met |\n|---|---|---|")
    for what, attainment, accuracy in rows:
        print(f"| {what} | {attainment:.4f} | {accuracy or 0.0:.4f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
