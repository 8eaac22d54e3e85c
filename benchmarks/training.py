"""Images per second of a training step, each way of computing it in turns.

    python -m benchmarks.training --variants nin-orig,nin-root-16 --rounds 5 --json training.json

On a GPU also all variants side by side, and the share of the card's peak in bf16 (--peak-tflops).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rootmodels.cifar10 import LabelledImages
from rootmodels.cost import network_cost
from rootmodels.train import keep_freed_memory
from rootmodels.train_fleet import Computing, Fleet, variants_fleet
from rootmodels.train_job import hardware
from rootmodels.train_options import add_computing, chosen_computing
from rootmodels.train_recipe import Recipe
from rootmodels.variants import get_variant
from rootmodels.weights_info import with_weights


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute the step of some variants."""

    name: str
    computing: Computing
    variants: tuple[str, ...]


def ways(variants: Sequence[str], chosen: Computing, *, together: bool) -> list[Way]:
    """What is compared: the convolutions as they are, as dense ones, and compiled."""
    forms = {"grouped": replace(chosen, dense=False, compiled=False)}
    forms["dense"] = replace(chosen, dense=True, compiled=False)
    if chosen.compiled:
        forms["dense, compiled"] = replace(chosen, dense=True)
    result = [
        Way(form, computing, (name,)) for form, computing in forms.items() for name in variants
    ]
    if together:
        result.append(Way("side by side", chosen, tuple(with_weights())))
    return result


def seconds_per_step(fleet: Fleet, steps: int) -> float:
    """Mean of ``steps`` steps in a row."""
    device = fleet.computing.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.monotonic()
    for _ in range(steps):
        fleet.step = 0
        fleet.train_step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.monotonic() - began) / steps


def training_flops(names: Sequence[str]) -> float:
    """Floating-point operations of one image's step: forward, and twice that backward, on real weights."""
    return sum(6.0 * network_cost(get_variant(name)).macs for name in names)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    add = parser.add_argument
    add("--variants", default="nin-orig,nin-root-16")
    add("--batch-size", type=int, default=256)
    add("--crop", type=int, default=32, help="pixels")
    add("--rounds", type=int, default=5)
    add("--steps", type=int, default=10, help="in each round")
    add("--together", action="store_true", help="also all variants side by side")
    add("--peak-tflops", type=float, help="the device's peak in what convolutions compute in")
    add("--json", type=Path, metavar="FILE")
    add_computing(parser)
    args = parser.parse_args(arguments)
    keep_freed_memory()
    chosen = chosen_computing(args)
    rng = np.random.default_rng(0)
    count = args.batch_size * 2
    data = LabelledImages(
        rng.integers(0, 256, (count, 3, 32, 32), np.uint8), rng.integers(0, 10, count)
    )
    recipe = Recipe(
        batch_size=args.batch_size,
        padding=2,
        small_share=1.0 if args.crop < 32 else 0.0,
        small_size=args.crop,
    )
    compared = ways(args.variants.split(","), chosen, together=args.together)
    fleets = []
    for way in compared:
        began = time.monotonic()
        fleets.append(
            variants_fleet(
                [get_variant(name) for name in way.variants], recipe, 0, data, way.computing
            )
        )
        seconds_per_step(fleets[-1], 2)
        print(
            f"{way.name}, {len(way.variants)}: ready in {time.monotonic() - began:.1f} s",
            flush=True,
        )
    times: list[list[float]] = [[] for _ in compared]
    for _ in range(args.rounds):
        for place, fleet in enumerate(fleets):
            times[place].append(seconds_per_step(fleet, args.steps))
    rows = []
    for way, found in zip(compared, times, strict=True):
        rates = sorted(len(way.variants) * args.batch_size / seconds for seconds in found)
        flops = training_flops(way.variants) * args.batch_size / statistics.median(found)
        row = {
            "way": way.name,
            "variants": list(way.variants),
            "images_per_s": {"median": statistics.median(rates), "of": rates},
            "tflops": flops / 1e12,
        }
        rows.append(row)
        name = way.variants[0] if len(way.variants) == 1 else f"{len(way.variants)} variants"
        share = f", {flops / 1e12 / args.peak_tflops:.1%} of the peak" if args.peak_tflops else ""
        print(
            f"{name:14} {way.name:18} {statistics.median(rates):9,.0f} images/s "
            f"({rates[0]:,.0f}-{rates[-1]:,.0f}), {flops / 1e12:.2f} TFLOP/s{share}"
        )
    if args.json:
        content = {
            "hardware": hardware(chosen.device),
            "torch": torch.__version__,
            "precision": str(chosen.dtype).removeprefix("torch."),
            "batch_size": args.batch_size,
            "crop": args.crop,
            "steps": args.steps,
            "rows": rows,
        }
        args.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
