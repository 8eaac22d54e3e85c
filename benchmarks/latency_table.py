"""How long batches of each variant take on a server: ``python -m benchmarks.latency_table``.

Starts the service with the variants of a family and sends batches of 1, 2, 4, ... rows, one at a time, the variants
in turns, there and back. Writes what ``rootserve simulate`` and ``rootserve plan`` read. On a machine that
others use as well two tables are of interest: of all turns (``--busy``), and of those few in which nothing else
seems to have run, by which the machine is known. The spread of the latter is that of all variants together,
because of each there are few.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rounds import machine
from benchmarks.server_process import serving
from rootserve.client import Client
from rootserve.server.machine import cpu_count

ROWS = (1, 2, 4, 8, 16, 32)
_REPEATS = 3
_QUIET = 12
"""Turns of each variant that count as quiet: the fastest."""
_IMAGES = 10_000
"""On so many the accuracies were measured."""

Turns = dict[int, list[list[float]]]
"""By rows, for each turn, the seconds of its batches."""


def measure(address: str, variants: Sequence[str], seconds: float, size: int) -> dict[str, Turns]:
    """Computation times of each variant, in turns."""
    random = np.random.default_rng(0)
    images = {rows: random.integers(0, 256, (rows, 3, size, size), np.uint8) for rows in ROWS}
    found: dict[str, Turns] = {name: {rows: [] for rows in ROWS} for name in variants}
    end_s, turn = time.monotonic() + seconds, 0
    with Client(address) as client:
        while time.monotonic() < end_s:
            for name in variants[:: -1 if turn % 2 else 1]:
                for rows in ROWS:
                    answers = [client.infer(name, images[rows]) for _ in range(_REPEATS)]
                    timelines = [one.timeline for one in answers if one.timeline]
                    found[name][rows].append([one.compute_s for one in timelines])
            turn += 1
    return found


def busy_rows(kind: str, found: Mapping[str, Turns]) -> list[dict[str, Any]]:
    """The table of all turns."""
    return [
        _row(kind, name, rows, [each for turn in turns[rows] for each in turn])
        for name, turns in found.items()
        for rows in ROWS
    ]


def quiet_rows(kind: str, found: Mapping[str, Turns]) -> list[dict[str, Any]]:
    """The table of each variant's fastest turns, with the spread that all have of them."""
    kept: dict[tuple[str, int], list[float]] = {}
    spread: dict[int, list[float]] = defaultdict(list)
    for name, turns in found.items():
        least = {rows: np.quantile(np.concatenate(turns[rows]), 0.05) for rows in ROWS}
        levels = [
            np.median([each / least[rows] for rows in ROWS for each in turns[rows][turn]])
            for turn in range(len(turns[1]))
        ]
        for rows in ROWS:
            quiet = np.argsort(levels)[:_QUIET]
            kept[name, rows] = [each for turn in quiet for each in turns[rows][turn]]
            middle = np.median(kept[name, rows])
            spread[rows] += [float(each / middle) for each in kept[name, rows]]
    made = []
    for (name, rows), seconds in kept.items():
        row = _row(kind, name, rows, seconds)
        wide = float(np.quantile(spread[rows], 0.99))
        made.append({**row, "p99_s": round(row["p50_s"] * wide, 7)})
    return _rising(made)


def _row(kind: str, name: str, rows: int, seconds: Sequence[float]) -> dict[str, Any]:
    p50_s, p99_s = np.quantile(seconds, [0.5, 0.99])
    told = {"kind": kind, "model": name, "form": "pixels", "rows": rows, "count": len(seconds)}
    return {**told, "p50_s": round(float(p50_s), 7), "p99_s": round(float(p99_s), 7)}


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
    parser.add_argument("--json", type=Path, required=True, help="the table of quiet turns")
    parser.add_argument("--busy", type=Path, help="the table of all turns")
    parser.add_argument("options", nargs="*", help="options of the server, behind --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rootserve.server", "--port", "0", "--metrics-port", "0"]
        command += ["--models", f"{args.family}-*", "--cache", folder, *args.options]
        with serving(command, Path(folder) / "log") as server, Client(server.address) as client:
            models = [
                model
                for model in client.models()
                if model.family == args.family and model.state == "ready" and model.accuracy
            ]
            kind = client.server_info().workers[0].device_name
            names = [model.name for model in models]
            found = measure(server.address, names, args.seconds, models[0].image_size)
    members = [
        {
            "variant": model.name,
            "accuracy": model.accuracy,
            "tie": round(1.96 * (model.accuracy * (1 - model.accuracy) / _IMAGES) ** 0.5, 5),
        }
        for model in models
        if model.accuracy
    ]
    where = f"{machine('cpu', cpu_count())}, load {os.getloadavg()[0]:.1f}"
    for path, rows in ((args.json, quiet_rows(kind, found)), (args.busy, busy_rows(kind, found))):
        if path:
            told = {"schema": "rootserve.latency/1", "server": {"cpu": where}, "members": members}
            lines = json.dumps({**told, "latency": rows}, indent=None)
            path.write_text(lines.replace("}, {", "},\n {") + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
