"""perf_analyzer's images in messages and in system shared memory, on one server, taking turns.

python -m benchmarks.shared_memory --perf-analyzer PROGRAM [--model resnet50-orig]
"""

from __future__ import annotations

import argparse
import os
import statistics

from benchmarks.perf_analyzer import requests_per_second
from benchmarks.rounds import machine, ratios, spread
from benchmarks.server_process import SERVER_COMMAND, serving


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--perf-analyzer", required=True, metavar="PROGRAM")
    parser.add_argument("--model", default="nin-root-16", help="its images may be larger")
    parser.add_argument(
        "--engine", default="fake", help="fake leaves the transport alone to be seen"
    )
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    options = parser.parse_args()
    command = [*SERVER_COMMAND]
    command += ["--models", options.model, "--engine", options.engine, "--shared-memory", "system"]
    ways = {"messages": (), "shared memory": ("--shared-memory", "system")}
    print(machine("cpu", len(os.sched_getaffinity(0))))
    print("| rows of a request | messages, requests/s | shared memory, requests/s | ratio |")
    print("|---|---|---|---|")
    with serving(command) as server:
        for rows in (1, 8, 32):
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for number in range(options.rounds):
                for way in reversed(ways) if number % 2 else ways:
                    rates[way].append(
                        requests_per_second(
                            options.perf_analyzer,
                            server.address,
                            options.model,
                            options.callers,
                            options.seconds,
                            rows,
                            ways[way],
                        )
                    )
            ratio = ratios(rates["shared memory"], rates["messages"])
            print(
                f"| {rows} | {spread(rates['messages'])} | {spread(rates['shared memory'])} | "
                f"{statistics.median(ratio):.2f} ({min(ratio):.2f}-{max(ratio):.2f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
