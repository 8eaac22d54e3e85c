"""What changes of the training recipe bring, on images held out of the training set.

    python -m benchmarks.recipes --data DIR --teacher teacher.safetensors --epochs 16 --json recipes.json

Each change is one network of its own; those that see the same batches are trained side by side. The test set
is never looked at. The best change is written as arguments of rootmodels.train, ready for ``--set``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.network import Network
from rootmodels.teacher import load_teacher
from rootmodels.train_batches import Batches
from rootmodels.train_dense import dense_form
from rootmodels.train_fleet import Computing, Fleet
from rootmodels.train_job import hardware
from rootmodels.train_options import add_computing, chosen_computing
from rootmodels.train_recipe import RECIPES, Recipe
from rootmodels.train_run import Run, accuracy
from rootmodels.train_teacher import held_out
from rootmodels.variants import FAMILIES, get_variant

Numbers = dict[str, float | int]

TAUGHT: Numbers = {"teacher_share": 1.0, "temperature": 4.0}
CHANGES: dict[str, Numbers] = {
    "labels alone": {},
    "teacher, T=1": TAUGHT | {"temperature": 1.0},
    "teacher, T=2": TAUGHT | {"temperature": 2.0},
    "teacher, T=4": TAUGHT,
    "teacher, T=4, averaging": TAUGHT | {"averaging": 1.0},
    "teacher, T=4, mixup": TAUGHT | {"mixup": 0.5},
    "teacher, T=4, half the rate": TAUGHT | {"muon_lr": 0.02},
    "teacher, T=4, twice the rate": TAUGHT | {"muon_lr": 0.08},
    "teacher, T=1, mixup": TAUGHT | {"temperature": 1.0, "mixup": 0.5},
}
BATCHES = ("batch_size", "small_share", "small_size", "padding", "cutout", "mixup")
"""The numbers that change what the networks see."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One change: accuracy on what was held out and on the last epoch's training images, 0..1."""

    change: str
    numbers: Numbers
    held_out: float
    train: float


def groups(changes: Sequence[str], base: Recipe) -> list[list[str]]:
    """The changes whose networks see the same batches, together."""
    found: dict[tuple[float, ...], list[str]] = {}
    for change in changes:
        recipe = replace(base, **CHANGES[change])
        found.setdefault(tuple(getattr(recipe, name) for name in BATCHES), []).append(change)
    return list(found.values())


def measure(
    changes: Sequence[str],
    base: Recipe,
    variant_name: str,
    data: tuple[LabelledImages, LabelledImages],
    computing: Computing,
    teacher: torch.nn.Module,
) -> list[Measured]:
    """Train one network for each of the ``changes``, side by side, and measure them."""
    variant = get_variant(variant_name)
    family = FAMILIES[variant.family]
    recipes = [replace(base, **CHANGES[change]) for change in changes]
    device = computing.device
    batches = Batches(
        data[0], recipes[0], 0, device, colour=family.mean, image_size=family.image_size
    )
    form = dense_form(variant, None, None, device, computing.compiled)
    runs = []
    for recipe in recipes:
        torch.manual_seed(0)
        model = Network(variant).to(device)
        forward = (lambda images, model=model: form(model, images)) if computing.dense else None
        steps = batches.steps_per_epoch
        runs.append(
            Run(model, recipe, steps_per_epoch=steps, dtype=computing.dtype, forward=forward)
        )
    taught = any(recipe.teacher_share for recipe in recipes)
    fleet = Fleet(runs, batches, computing, teacher if taught else None)
    while fleet.step < fleet.steps:
        if fleet.step % fleet.steps_per_epoch == 0:
            for run in runs:
                run.sums.zero_()
        fleet.train_step()
    result = []
    for change, run in zip(changes, runs, strict=True):
        _, hits, seen = run.sums.tolist()
        run.take_averages()
        found = accuracy(run.model, data[1], device)
        result.append(Measured(change, CHANGES[change], found, hits / seen))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR")
    add("--teacher", type=Path, required=True, metavar="FILE")
    add("--variant", default="nin-root-16")
    add("--epochs", type=int, default=16)
    add("--batch-size", type=int, help="of all changes that say no other")
    add("--changes", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="CHANGE")
    add("--images", type=int, help="train on as many images only")
    add("--minutes", type=float, default=60.0, help="begin nothing after this time")
    add("--json", type=Path, metavar="FILE")
    add("--best", type=Path, metavar="FILE", help="gets the best change, for --set")
    add_computing(parser)
    args = parser.parse_args(arguments)
    began = time.monotonic()
    computing = chosen_computing(args)
    teacher, about = load_teacher(args.teacher)
    teacher.to(computing.device)
    train, rest = held_out(read_cifar10(args.data, "train"), about.held_out)
    if train.sha256() != about.data_sha256:
        print("error: the teacher was trained on other images", file=sys.stderr)
        return 2
    if args.images:
        train, _ = held_out(train, len(train) - args.images)
    base = replace(RECIPES["long"], epochs=args.epochs)
    if args.batch_size:
        base = replace(base, batch_size=args.batch_size)
    print(f"the teacher: {about.accuracy:.4f} on {len(rest)} images held out", flush=True)
    rows: list[Measured] = []
    for group in groups(args.changes, base):
        if time.monotonic() - began > args.minutes * 60:
            print(f"no time for {', '.join(group)}", flush=True)
            continue
        for row in measure(group, base, args.variant, (train, rest), computing, teacher):
            print(f"{row.change:30} held out {row.held_out:.4f}  train {row.train:.4f}", flush=True)
            rows.append(row)
        if args.json:
            content = {
                "variant": args.variant,
                "base": asdict(base),
                "teacher": about.accuracy,
                "hardware": hardware(computing.device),
                "torch": torch.__version__,
                "rows": [asdict(row) for row in rows],
            }
            args.json.write_text(json.dumps(content, indent=1) + "\n")
        best = max(rows, key=lambda row: row.held_out)
        if args.best:
            args.best.write_text(" ".join(f"{key}={value}" for key, value in best.numbers.items()))
    print(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
