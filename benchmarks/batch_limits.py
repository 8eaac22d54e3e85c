"""Whether the batch limits that are measured at each load agree: ``python -m benchmarks.batch_limits``.

Starts the service so many times, with one cache folder, and counts how many rows each worker found worth a
batch. Other work on the machine is what the measurement has to stand: ``--neighbours 2`` are two processes
that compute all the time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes that compute all the time, ended behind the block."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def steps(counts: dict[int, int]) -> int:
    """How many times the smallest of these rows are doubled until they are the largest, rounded up."""
    return (-(-max(counts) // min(counts)) - 1).bit_length()


def main() -> int:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--models", default="nin-root-16", help="one after the other")
    parser.add_argument(
        "--neighbours", type=int, default=0, help="processes that compute beside it"
    )
    parser.add_argument("options", nargs="*", help="options of the server, behind --")
    args = parser.parse_args()
    where = f"{machine('cpu', cpu_count())}, load {os.getloadavg()[0]:.1f}"
    print(f"{where}; {args.starts} starts, {args.neighbours} neighbours", *args.options)
    print("\n| model | rows: loads | steps apart | load, s |\n|---|---|---|---|", flush=True)
    with neighbours(args.neighbours):
        for model in args.models.split(","):
            with tempfile.TemporaryDirectory() as folder:
                list(loads(model, args.options, Path(folder)))  # chooses the engine
                found = [
                    load
                    for _ in range(args.starts)
                    for load in loads(model, args.options, Path(folder))
                ]
            counts = Counter(rows for rows, _ in found)
            text = ", ".join(f"{rows}: {count}" for rows, count in sorted(counts.items()))
            seconds = spread([s for _, s in found], 2)
            print(f"| `{model}` | {text} | {steps(counts)} | {seconds} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
