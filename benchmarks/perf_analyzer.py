"""NVIDIA's perf_analyzer as the client: written in C++, it leaves more of the processors to the server.

``benchmarks/clients/setup DIR perf_analyzer`` installs it as ``DIR/perf_analyzer/bin/perf_analyzer``.
"""

from __future__ import annotations

import csv
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_SHORTEST_MS = 1000
"""In shorter windows it may find no answer at all."""
_STABLE_PERCENT = "999"
"""Windows may differ by so much: turns are short, and their spread is reported by who repeats them."""


def requests_per_second(  # noqa: PLR0913, PLR0917 - what is measured
    program: str,
    server: str,
    model: str,
    callers: int,
    seconds: float,
    rows: int = 1,
    options: Sequence[str] = (),
) -> float:
    """What it reports for ``callers`` in a closed loop, as the mean of three windows; with more ``options``.

    Raises:
        RuntimeError: if it gave no result.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        command = [program, "-m", model, "-u", server, "-i", "grpc", "-f", str(table)]
        command += ["--concurrency-range", str(callers), "-b", str(rows)]
        command += ["--async", "--stability-percentage", _STABLE_PERCENT, "--max-trials", "6"]
        command += ["--measurement-interval", str(max(_SHORTEST_MS, round(1000 * seconds / 3)))]
        command += options
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if not table.exists():
            raise RuntimeError(f"perf_analyzer gave no result:\n{done.stdout}{done.stderr}")
        (row,) = csv.DictReader(table.read_text().splitlines())
        return float(row["Inferences/Second"]) / rows
