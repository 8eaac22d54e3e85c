"""Whether the batch limits that are measured at each load agree: ``python -m benchmarks.batch_limits``.

Starts the service so many times, with one cache folder, and counts how many rows each worker found worth a
batch. Other work on the machine is welcome: it is what the measurement has to stand.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rounds import machine, spread
from benchmarks.server_process import SERVER_COMMAND, serving
from rootserve.server.machine import cpu_count


def loads(model: str, options: list[str], cache: Path) -> Iterator[tuple[int, float]]:
    """Start a server: for each worker, rows of its batches, and the seconds it took to load ``model``."""
    log = cache / "log"
    log.unlink(missing_ok=True)
    command = [*SERVER_COMMAND]
    command += ["--models", model, "--cache", str(cache), "--log-format", "json", *options]
    with serving(command, log):
        pass
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    seconds = {line["worker"]: line["seconds"] for line in lines if "seconds" in line}
    for line in lines:
        if "batch_rows" in line:
            yield line["batch_rows"], seconds[line["worker"]]


def main() -> int:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--models", default="nin-root-16", help="one after the other")
    parser.add_argument("options", nargs="*", help="options of the server, behind --")
    args = parser.parse_args()
    where = f"{machine('cpu', cpu_count())}, load {os.getloadavg()[0]:.1f}"
    print(f"{where}; {args.starts} starts\n\n| model | rows: loads | load, s |\n|---|---|---|")
    for model in args.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            list(loads(model, args.options, Path(folder)))  # chooses the engine
            found = [
                load
                for _ in range(args.starts)
                for load in loads(model, args.options, Path(folder))
            ]
        counts = sorted(Counter(rows for rows, _ in found).items())
        text = ", ".join(f"{rows}: {count}" for rows, count in counts)
        print(f"| `{model}` | {text} | {spread([s for _, s in found], 2)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
