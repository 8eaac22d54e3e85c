"""How long a start takes, and how much memory is held then: ``python -m benchmarks.start_up``.

A start lasts from the command to the first ServerReady that says yes: all models are loaded, and warm. *Cold*
is a start with an empty cache folder, in which the engine and precision of each model are still to be chosen;
*warm* is the next one with that folder. Files have been read before, so that both find them in memory. Of
resident memory, pages that processes share count in each of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.rounds import machine, spread
from benchmarks.server_process import SERVER_COMMAND, serving
from rootmodels.weights_info import with_weights
from rootserve.client.address import parse_address
from rootserve.client.top.source import fetch
from rootserve.server.machine import cpu_count

SETS = {"nin-root-16": ("nin-root-16",), "all 14 NiN": tuple(with_weights())}


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds until everything was ready, and MiB held then by the front process and by the workers."""

    ready_s: float
    front_mib: float
    workers_mib: float


def start(models: Sequence[str], cache: str) -> Start:
    """Start a server on the CPU, look at it, and end it."""
    command = [*SERVER_COMMAND]
    command += ["--device", "cpu", "--models", ",".join(models), "--cache", cache]
    began_s = time.perf_counter()
    with serving(command) as server:
        ready_s = time.perf_counter() - began_s
        assert server.metrics is not None
        workers = fetch(parse_address(server.metrics)).workers.values()
        workers_bytes = sum(worker.memory_bytes or 0 for worker in workers)
        return Start(ready_s, server.resident_bytes() / 2**20, workers_bytes / 2**20)


def main() -> int:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    where = f"{machine('cpu', cpu_count())}, load {os.getloadavg()[0]:.1f}"
    print(f"{where}; median and quartiles of {args.rounds} starts\n")
    print("| models | cache | ready, s | front process, MiB | worker, MiB |\n|---|---|---|---|---|")
    results = {}
    for name, models in SETS.items():
        starts: dict[str, list[Start]] = {"cold": [], "warm": []}
        with tempfile.TemporaryDirectory() as folder:
            start(models, folder)
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory() as folder:
                for found in starts.values():
                    found.append(start(models, folder))
        for state, found in starts.items():
            cells = [
                spread([one.ready_s for one in found], 1),
                spread([one.front_mib for one in found]),
                spread([one.workers_mib for one in found]),
            ]
            print(f"| {name} | {state} | " + " | ".join(cells) + " |", flush=True)
        results[name] = {state: [asdict(one) for one in found] for state, found in starts.items()}
    if args.json:
        content = {"machine": where, "starts": results}
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
