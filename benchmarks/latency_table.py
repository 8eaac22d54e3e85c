"""How long batches of each variant take on a server: ``python -m benchmarks.latency_table``.

Starts the service with the variants of a family and sends batches of 1, 2, 4, ... rows, one at a time, the
variants in turns, there and back. Writes what ``rootserve simulate`` and ``rootserve plan`` read. On a
machine that others use as well two tables are of interest: of all batches (``--busy``), and of those during
which no thread of the worker waited long for a processor, by which the machine is known (``--first``: more).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rounds import machine
from benchmarks.server_process import SERVER_COMMAND, serving
from rootmodels.variants import VARIANTS
from rootserve.client import Client
from rootserve.server.machine import cpu_count

ROWS = (1, 2, 4, 8, 16, 32)
_REPEATS = 3
_UNDISTURBED = 0.25
"""Of its time a batch's threads may have waited for a processor in all; else others had a part in it."""

Samples = dict[tuple[str, int], list[tuple[float, float]]]
"""By variant and rows: seconds that a batch took, and for how many of them threads waited for a processor."""


def measure(
    client: Client, variants: Sequence[str], size: int, seconds: float, rest_s: float
) -> Samples:
    """Computation times of each variant, in turns."""
    random = np.random.default_rng(0)
    images = {rows: random.integers(0, 256, (rows, 3, size, size), np.uint8) for rows in ROWS}
    pid = client.server_info().workers[0].pid
    found: Samples = defaultdict(list)
    end_s, turn = time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        for name in variants[:: -1 if turn % 2 else 1]:
            for rows in ROWS * _REPEATS:
                waited_s = _waited_s(pid)
                timeline = client.infer(name, images[rows]).timeline
                assert timeline is not None
                found[name, rows].append((timeline.compute_s, _waited_s(pid) - waited_s))
        turn += 1
        time.sleep(rest_s)
    return found


def _waited_s(pid: int) -> float:
    """How long the threads of a process have been ready to run without a processor."""
    waited_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        waited_ns += int((task / "schedstat").read_text().split()[1])
    return waited_ns * 1e-9


def _go_first(pids: Sequence[int]) -> None:
    """Have the kernel prefer these processes' sessions, each of which it gives a share by itself."""
    for pid in pids:
        Path(f"/proc/{pid}/autogroup").write_text("-20")


def table(kind: str, found: Samples, *, quiet: bool) -> list[dict[str, Any]]:
    """The rows of a table, of all batches or of the undisturbed ones.

    Undisturbed ones may be few, so that their spread is taken to be that of all variants together.
    """
    kept = {
        key: [took for took, waited in samples if not quiet or waited <= _UNDISTURBED * took]
        for key, samples in found.items()
    }
    spread: dict[int, list[float]] = defaultdict(list)
    for (name, rows), seconds in kept.items():
        if len(seconds) < 2:
            text = f"{name}, {rows} rows: {len(seconds)} batches were undisturbed; measure longer"
            raise RuntimeError(text)
        spread[rows] += [each / float(np.median(seconds)) for each in seconds]
    made = []
    for (name, rows), seconds in kept.items():
        p50_s, p99_s = (float(each) for each in np.quantile(seconds, [0.5, 0.99]))
        if quiet:
            p99_s = p50_s * float(np.quantile(spread[rows], 0.99))
        told = {"kind": kind, "model": name, "form": "pixels", "rows": rows}
        times = {"count": len(seconds), "p50_s": round(p50_s, 7), "p99_s": round(p99_s, 7)}
        made.append(told | times)
    return _rising(made)


def _rising(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A larger batch takes no less: what says otherwise is noise."""
    least: dict[str, tuple[float, float]] = {}
    for row in sorted(made, key=lambda row: -row["rows"]):
        p50_s, p99_s = least.get(row["model"], (np.inf, np.inf))
        row["p50_s"], row["p99_s"] = min(row["p50_s"], p50_s), min(row["p99_s"], p99_s)
        least[row["model"]] = row["p50_s"], row["p99_s"]
    return made


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", default="nin")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rest", type=float, default=0, help="seconds between turns, for others")
    parser.add_argument("--first", action="store_true", help="before others' work; needs root")
    parser.add_argument("--json", type=Path, required=True, help="the table of undisturbed batches")
    parser.add_argument("--busy", type=Path, help="the table of all batches")
    parser.add_argument("options", nargs="*", help="options of the server, behind --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [*SERVER_COMMAND]
        variants = [name for name in VARIANTS if name.startswith(f"{args.family}-")]
        command += ["--models", ",".join(variants), "--cache", folder, *args.options]
        with serving(command, Path(folder) / "log") as server, Client(server.address) as client:
            models = [
                model
                for model in client.models()
                if model.family == args.family and model.state == "ready" and model.accuracy
            ]
            kind = client.server_info().workers[0].device_name
            names = [model.name for model in models]
            if args.first:
                _go_first([server.pid, *(worker.pid for worker in client.server_info().workers)])
            found = measure(client, names, models[0].image_size, args.seconds, args.rest)
    members = [
        {
            "variant": model.name,
            "accuracy": model.accuracy,
        }
        for model in models
        if model.accuracy
    ]
    where = f"{machine('cpu', cpu_count())}, load {os.getloadavg()[0]:.1f}"
    for path, quiet in ((args.json, True), (args.busy, False)):
        if path:
            rows = table(kind, found, quiet=quiet)
            told = {"schema": "rootserve.latency/1", "server": {"cpu": where}, "members": members}
            lines = json.dumps({**told, "latency": rows}, indent=None)
            path.write_text(lines.replace("}, {", "},\n {") + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
