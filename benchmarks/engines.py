"""Images per second of each engine, without a server: ``python benchmarks/engines.py``.

Engines, variants and batch sizes take turns within each round, so that a machine whose speed drifts is
the same machine for all of them. Prints the median over the rounds and the range.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from rootmodels.weights_info import weights_path
from server.engines.base import Engine, LoadSpec
from server.engines.registry import get_loader
from server.machine import cpu_count, cpu_name


def images_per_second(engine: Engine, rows: int, seconds: float) -> float:
    """Run batches of ``rows`` for about ``seconds``."""
    images = np.random.default_rng(0).integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8)
    engine.run(images)
    batches = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        engine.run(images)
        batches += 1
    return batches * rows / elapsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--engines", default="torch,openvino")
    parser.add_argument("--variants", default="nin-orig,nin-root-4,nin-root-16")
    parser.add_argument("--rows", default="1,8,32")
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="per measurement")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)

    loaded = {}
    for variant in args.variants.split(","):
        path = weights_path(variant)
        spec = LoadSpec(variant, path if path.exists() else None, args.device, args.threads)
        for engine in args.engines.split(","):
            loaded[engine, variant] = get_loader(engine)(spec)
    sizes = [int(rows) for rows in args.rows.split(",")]
    rates: dict[tuple[str, str, int], list[float]] = {
        (*key, rows): [] for key in loaded for rows in sizes
    }
    for _ in range(args.rounds):
        for (engine, variant, rows), found in rates.items():
            found.append(images_per_second(loaded[engine, variant], rows, args.seconds))

    libraries = {name: metadata.version(name) for name in ("torch", "openvino", "numpy")}
    machine = {
        "cpu": cpu_name(),
        "threads": args.threads,
        "device": args.device,
        "python": platform.python_version(),
        **libraries,
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(f"images/s, median of {args.rounds} rounds (range)\n")
    print(f"{'engine':10}{'variant':14}" + "".join(f"{f'{rows} rows':>22}" for rows in sizes))
    for engine, variant in loaded:
        cells = ""
        for rows in sizes:
            found = rates[engine, variant, rows]
            cells += f"{statistics.median(found):,.0f} ({min(found):,.0f}-{max(found):,.0f})".rjust(
                22
            )
        print(f"{engine:10}{variant:14}{cells}")
    if args.json:
        results = [
            {"engine": engine, "variant": variant, "rows": rows, "images_per_s": found}
            for (engine, variant, rows), found in rates.items()
        ]
        args.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
