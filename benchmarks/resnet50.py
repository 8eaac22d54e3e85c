"""Milliseconds per image of the ResNet-50 variants, without a server: ``python -m benchmarks.resnet50``.

The variants take turns within each round, there and back again, so that a machine whose speed drifts is the
same machine for all of them. In its turn a variant computes one batch that does not count and three that do;
their median is the round's time. A speed-up is the ratio of two times of the same round. ``--json`` and
``--markdown`` write what was found.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rootmodels.cost import network_cost
from rootmodels.families.resnet50 import RESNET50
from rootmodels.processor import cpu_name
from rootmodels.variants import get_variant
from rootserve.server.engines.base import Engine, LoadSpec
from rootserve.server.engines.registry import get_loader
from rootserve.server.machine import cpu_count

VARIANTS = ",".join(variant.name for variant in RESNET50.variants if variant.paper)
_UNTIMED, _TIMED = 1, 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One variant at one batch size: milliseconds per image of each round."""

    variant: str
    rows: int
    rounds_ms: list[float]

    def speedups(self, orig: Measured) -> list[float]:
        """How many times faster than ``orig``, round by round."""
        return [theirs / mine for theirs, mine in zip(orig.rounds_ms, self.rounds_ms, strict=True)]


def turn(engine: Engine, images: NDArray[np.uint8]) -> float:
    """Milliseconds per image."""
    times = []
    for _ in range(_UNTIMED + _TIMED):
        began = time.perf_counter()
        engine.run(images)
        times.append((time.perf_counter() - began) * 1e3 / len(images))
    return statistics.median(times[_UNTIMED:])


def measure(engines: dict[str, Engine], sizes: Sequence[int], rounds: int) -> list[Measured]:
    """Every variant at every batch size, in turns."""
    rng = np.random.default_rng(0)
    images = {rows: rng.integers(0, 256, (rows, 3, 224, 224), dtype=np.uint8) for rows in sizes}
    found = [Measured(name, rows, []) for rows in sizes for name in engines]
    for number in range(rounds):
        for each in found if number % 2 == 0 else reversed(found):
            each.rounds_ms.append(turn(engines[each.variant], images[each.rows]))
        print(f"round {number + 1} of {rounds}", flush=True)
    return found


def spread(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def markdown(found: Sequence[Measured], sizes: Sequence[int], machine: dict[str, Any]) -> str:
    """A table, and what was measured with below it."""
    by_key = {(each.variant, each.rows): each for each in found}
    names = list(dict.fromkeys(each.variant for each in found))
    head = ["variant", "GMACs", "params, M"]
    for rows in sizes:
        head += [f"ms, batch {rows}", f"speed-up, batch {rows}"]
    head += ["FLOPs ratio", "CPU speed-up in the paper"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    orig, orig_cost = get_variant(names[0]), network_cost(get_variant(names[0]))
    for name in names:
        variant, cost = get_variant(name), network_cost(get_variant(name))
        cells = [f"`{name}`", f"{cost.macs / 1e9:.3f}", f"{cost.params / 1e6:.2f}"]
        for rows in sizes:
            mine = by_key[name, rows]
            cells.append(spread(mine.rounds_ms, 1))
            cells.append(spread(mine.speedups(by_key[names[0], rows]), 2))
        cells.append(f"{orig_cost.flops_paper / cost.flops_paper:.2f}")
        both = (orig.paper, variant.paper)
        cells.append(f"{both[0].cpu_ms / both[1].cpu_ms:.2f}" if both[0] and both[1] else "-")
        lines.append(cells)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    what = ", ".join(f"{key} {value}" for key, value in machine.items())
    return f"{table}\n\nMedian (range) over the rounds. {what}.\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resnet50", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--variants", default=VARIANTS, help="the first is what others divide")
    parser.add_argument("--rows", default="1,10", help="images in a batch; the paper has 10")
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args(arguments)

    load = get_loader(args.engine)
    engines = {
        name: load(LoadSpec(name, None, args.device, args.threads, args.precision))
        for name in args.variants.split(",")
    }
    sizes = [int(rows) for rows in args.rows.split(",")]
    found = measure(engines, sizes, args.rounds)
    machine = {
        "cpu": cpu_name(),
        "threads": args.threads,
        "device": args.device,
        "engine": args.engine,
        "precision": args.precision,
        "rounds": args.rounds,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "openvino", "numpy")},
    }
    text = markdown(found, sizes, machine)
    print(text)
    if args.markdown:
        args.markdown.write_text(text)
    if args.json:
        results = [
            {"variant": each.variant, "rows": each.rows, "rounds_ms": each.rounds_ms}
            for each in found
        ]
        args.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
