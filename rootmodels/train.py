"""Train variants: ``python -m rootmodels.train nin-root-16 nin-orig --data DIR``.

Variants are trained one after the other, on the CPU or one CUDA device. Kill it at any moment and start the
same command again: it goes on from the last checkpoint. The recipe is in ``rootmodels/train_run.py``.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rootmodels.cifar10 import LabelledImages
from rootmodels.data_error import DataError
from rootmodels.families import FAMILIES
from rootmodels.train_data import read_training_data
from rootmodels.train_job import Options, OutOfTimeError, Training, init_path, say
from rootmodels.train_run import Recipe
from rootmodels.variants import NIN_VARIANTS, VARIANTS, UnknownVariantError, get_variant
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import PRETRAINED_DIR, WeightsError, read_info, weights_path

RECIPES = {
    "short": Recipe(),
    "long": Recipe(epochs=100, padding=4, small_share=0.3),
}
"""``short`` for a CPU, tried out there; ``long`` for a GPU, as yet untried."""


def train(
    names: Sequence[str],
    recipe: Recipe,
    seeds: Sequence[int],
    data: tuple[LabelledImages, LabelledImages],
    options: Options,
) -> None:
    """Train each variant with each seed, going on from checkpoints where there are any.

    ``data`` is the training and the test set. ``options.out`` gets the weights of the first seed, whose
    metadata has the accuracies of all; the weights of all seeds are in the work folder.

    Raises:
        OutOfTimeError: if ``options.stop_at`` comes first.
    """
    with _progress() as progress:
        tasks = {
            (name, seed): progress.add_task(f"{name} seed {seed}", total=None, status="")
            for name in names
            for seed in seeds
        }
        for name in names:
            trained = []
            for seed in seeds:
                training = Training(name, recipe, seed, data[0], options)
                run, task = training.run, tasks[name, seed]
                done = run.steps if training.weights.exists() else run.step
                progress.update(task, total=run.steps, completed=done)
                if done:
                    say(progress, f"{name}: going on from step {done} of {run.steps}")
                if not training.weights.exists():
                    training.to_the_end(progress, task)
                    training.finish(data[1])
                trained.append(training.weights)
            _publish(trained, weights_path(name, options.out), progress)


def _publish(trained: Sequence[Path], path: Path, progress: Progress) -> None:
    """Write the first of the ``trained`` weights to ``path``, with the accuracies of all."""
    model, info = load_weights(trained[0])
    accuracies = {str(other.seed): other.accuracy or 0.0 for other in map(read_info, trained)}
    save_weights(path, model, replace(info, seed_accuracies=accuracies))
    told = ", ".join(f"{value:.4f} (seed {seed})" for seed, value in accuracies.items())
    say(progress, f"{info.variant}: accuracy {told} -> {path}")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:18}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: returning each activation to the kernel costs 30 % of a step.

    Does nothing where there is no glibc.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # from malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 512 * 2**20)


def short_of_paper(folder: Path) -> list[str]:
    """Network-in-Network variants whose weights in ``folder`` miss the paper's accuracy, or are not there.

    Those without weights come first, then those that miss most; a variant that the paper's Table 8 does not
    have counts as missing its own weights only.
    """
    missed = {}
    for variant in NIN_VARIANTS:
        path = weights_path(variant.name, folder)
        got = (read_info(path).accuracy or 0.0) if path.exists() else 0.0
        wanted = variant.paper.accuracy if variant.paper else 0.0
        if not path.exists() or got < wanted:
            missed[variant.name] = wanted - got
    return sorted(missed, key=lambda name: -missed[name])


def one_image_size(names: Iterable[str], asked: int | None) -> int:
    """What the variants take, or what was ``asked`` for.

    Raises:
        DataError: if they take images of different sizes, or a size that makes no sense was asked for.
    """
    if asked is not None:
        if not 16 <= asked <= 1024:
            raise DataError(f"--image-size is {asked}, expected 16 to 1024")
        return asked
    families = sorted({get_variant(name).family for name in names})
    if len(families) > 1:
        raise DataError(
            f"variants of {' and '.join(families)} take images of different sizes: "
            "expected variants of one family, or --image-size"
        )
    return FAMILIES[families[0]].image_size


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m rootmodels.train", description=__doc__)
    add = result.add_argument
    add("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    add(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="CIFAR-10 in parquet, or pictures as train/CLASS/*.jpg and val/CLASS/*.jpg",
    )
    add(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="side of the images the networks see (default: the family's); others are scaled",
    )
    add("--recipe", choices=RECIPES, default="short")
    add("--epochs", type=int, help="another number of epochs than the recipe's")
    add("--seeds", type=int, nargs="+", default=[0], help="the first one's weights are written")
    add("--short-of-paper", action="store_true", help="train what misses the paper's accuracy")
    add("--init", type=Path, metavar="PATH", help="start from these weights, a folder or a file")
    add("--minutes", type=float, help="save and stop after this time, with exit status 3")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=int, help="CPU threads (default: torch's choice)")
    add("--compile", action=argparse.BooleanOptionalAction, default=True, help="on a GPU")
    add("--out", type=Path, default=PRETRAINED_DIR, help="folder for the weights")
    add("--work", type=Path, default=Path(".train"), help="folder for checkpoints and logs")
    add("--checkpoint-s", type=float, default=20.0, help="seconds between checkpoints")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    began = time.monotonic()
    args = parser().parse_args(arguments)
    recipe = RECIPES[args.recipe]
    if args.epochs is not None:
        if args.epochs < 1:
            parser().error(f"--epochs is {args.epochs}, expected at least 1")
        recipe = replace(recipe, epochs=args.epochs)
    if bool(args.variants) == args.short_of_paper:
        parser().error("expected variants or --short-of-paper, one of the two")
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()
    try:
        names = args.variants or short_of_paper(args.out)
        if not names:
            return 0
        for name in names:
            get_variant(name)
            if (
                args.init
                and init_path(name, args.init).resolve() == weights_path(name, args.out).resolve()
            ):
                text = f"{name} would start from {args.init} and overwrite it"
                raise WeightsError(f"{text}; expected another folder for --out")
        image_size = one_image_size(names, args.image_size)
        data = read_training_data(args.data, image_size)
        options = Options(
            work=args.work,
            out=args.out,
            device=torch.device(args.device),
            init=args.init,
            checkpoint_s=args.checkpoint_s,
            compiled=args.compile,
            image_size=image_size,
            classes=data.classes,
            stop_at=float("inf") if args.minutes is None else began + args.minutes * 60,
        )
        train(names, recipe, args.seeds, (data.train, data.test), options)
    except (DataError, UnknownVariantError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OutOfTimeError:
        print("out of time: the same command goes on from here", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
