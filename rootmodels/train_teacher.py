"""Train the teacher: ``python -m rootmodels.train_teacher --data DIR --out teacher.safetensors``.

A part of the training set is held out: recipes are chosen on it (benchmarks/recipes.py), never on the test
set.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from rootmodels import cifar10_facts as cifar10
from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.teacher import Teacher, TeacherInfo, save_teacher
from rootmodels.train_batches import Batches
from rootmodels.train_fleet import Computing, Fleet
from rootmodels.train_job import hardware
from rootmodels.train_options import add_computing, chosen_computing
from rootmodels.train_recipe import Recipe
from rootmodels.train_run import Run, accuracy
from rootserve.pictures import DataError

TEACHING = Recipe(
    epochs=30, batch_size=512, padding=4, small_share=0.0, label_smoothing=0.0, cutout=8
)
HELD_OUT = 5000


def held_out(data: LabelledImages, images: int) -> tuple[LabelledImages, LabelledImages]:
    """The training set without its last ``images``, and those.

    Raises:
        DataError: if there are not more images than that.
    """
    if not 0 <= images < len(data):
        raise DataError(f"{images} images to hold out, expected 0 to {len(data) - 1}")
    kept = len(data) - images
    return (
        LabelledImages(data.images[:kept], data.labels[:kept]),
        LabelledImages(data.images[kept:], data.labels[kept:]),
    )


def train_teacher(
    train: LabelledImages,
    test: LabelledImages,
    recipe: Recipe,
    computing: Computing,
    seconds: float | None = None,
) -> tuple[Teacher, TeacherInfo]:
    """A teacher trained on ``train``, measured on ``test``.

    Args:
        train: What it learns from.
        test: What was held out; may be empty.
        recipe: The numbers.
        computing: How to compute.
        seconds: As many epochs as fit; without, the recipe's.
    """
    classes = int(train.labels.max()) + 1
    torch.manual_seed(0)
    teacher = Teacher(classes).to(computing.device)
    batches = Batches(
        train, recipe, 0, computing.device, colour=cifar10.MEAN, image_size=cifar10.SIDE
    )
    forward = torch.compile(teacher, dynamic=False, fullgraph=True) if computing.compiled else None
    fleet = Fleet(
        [Run(teacher, recipe, dtype=computing.dtype, forward=forward)], batches, computing
    )
    if seconds is not None:
        fleet.epochs = fleet.epochs_within(seconds)
    began = time.monotonic()
    while fleet.step < fleet.steps:
        fleet.train_step()
        if fleet.step % fleet.steps_per_epoch == 0:
            loss, hits, seen = fleet.runs[0].sums.tolist()
            fleet.runs[0].sums.zero_()
            epoch = fleet.step // fleet.steps_per_epoch
            print(
                f"teacher: epoch {epoch} of {fleet.epochs}: loss {loss / seen:.3f}  "
                f"train {hits / seen:.3f}",
                flush=True,
            )
    info = TeacherInfo(
        accuracy=accuracy(teacher, test, computing.device) if len(test) else 0.0,
        epochs=fleet.epochs,
        train_images=len(train),
        held_out=len(test),
        classes=classes,
        data_sha256=train.sha256(),
        recipe=asdict(replace(recipe, epochs=fleet.epochs)),
        hardware=hardware(computing.device),
        seconds=round(time.monotonic() - began, 1),
    )
    return teacher.eval(), info


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rootmodels.train_teacher", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="CIFAR-10 in parquet")
    add("--out", type=Path, required=True, metavar="FILE", help="where the teacher goes")
    add("--epochs", type=int, help=f"default: {TEACHING.epochs}")
    add("--fill-minutes", type=float, help="as many epochs as fit into this time")
    add("--batch-size", type=int, default=TEACHING.batch_size)
    add("--hold-out", type=int, default=HELD_OUT, help=f"images to keep back (default: {HELD_OUT})")
    add_computing(parser)
    args = parser.parse_args(arguments)
    recipe = replace(TEACHING, epochs=args.epochs or TEACHING.epochs, batch_size=args.batch_size)
    try:
        train, test = held_out(read_cifar10(args.data, "train"), args.hold_out)
        teacher, info = train_teacher(
            train,
            test,
            recipe,
            chosen_computing(args),
            None if args.fill_minutes is None else args.fill_minutes * 60,
        )
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    save_teacher(args.out, teacher, info)
    print(
        f"teacher: accuracy {info.accuracy:.4f} on {info.held_out} images held out, "
        f"{info.epochs} epochs in {info.seconds:.0f} s -> {args.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
