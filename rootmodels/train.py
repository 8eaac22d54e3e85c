"""Train networks: ``python -m rootmodels.train nin-root-16 nin-orig --data DIR``.

Those of families begin with random weights. Those of model files (``my-net --weights DIR``, or a path) begin
with their own, and become model files again. They are trained one after the other on the CPU, and side by
side on a CUDA device. Kill it at any moment and start the same command again: it goes on from the last
checkpoint. The recipe is in ``rootmodels/train_recipe.py``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rootmodels import cifar10_facts as cifar10
from rootmodels.cifar10 import LabelledImages
from rootmodels.model_file import open_weights
from rootmodels.signs import signs
from rootmodels.teacher import load_teachers
from rootmodels.train_data import read_training_data
from rootmodels.train_fleet import Fleet
from rootmodels.train_job import Options, OutOfTimeError, Training, new_fleet, say
from rootmodels.train_networks import Trainee, find_file, find_jobs, one_image_size
from rootmodels.train_options import add_computing, chosen_computing
from rootmodels.train_recipe import RECIPES, Recipe, with_numbers
from rootmodels.variants import FAMILIES, VARIANTS, UnknownVariantError
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import PRETRAINED_DIR, WeightsError, read_info, weights_path
from rootserve.pictures import DataError

EPOCHS_FILE = "epochs.json"
"""In the work folder: the number of epochs that --fill-minutes chose."""


def train(
    jobs: Mapping[Trainee, Sequence[int]],
    recipe: Recipe,
    data: tuple[LabelledImages, LabelledImages],
    options: Options,
) -> None:
    """Train each network with each of its seeds, going on from checkpoints where there are any.

    ``data`` is the training and the test set. ``options.out`` gets the weights of the first seed, whose
    metadata has the accuracies of all; the weights of all seeds are in the work folder.

    Raises:
        OutOfTimeError: if ``options.stop_at`` comes first.
    """
    trainees = list(jobs)
    with training_progress() as progress:
        tasks = {
            (one.name, seed): progress.add_task(f"{one.name} seed {seed}", total=None, status="")
            for one, seeds in jobs.items()
            for seed in seeds
        }
        for first in range(0, len(trainees), options.side_by_side):
            chunk = trainees[first : first + options.side_by_side]
            trained: dict[str, list[Path]] = {one.name: [] for one in chunk}
            for seed in dict.fromkeys(seed for one in chunk for seed in jobs[one]):
                together = [one for one in chunk if seed in jobs[one]]
                fleet = None
                if options.fill_s is not None:
                    share = len(together) / len(tasks)
                    recipe, fleet = _filling(together, recipe, seed, data[0], options, share)
                training = Training(together, recipe, seed, data[0], options, fleet)
                if training.pending:
                    _to_the_end(training, seed, progress, tasks)
                    training.finish(data[1])
                for name in (one.name for one in together):
                    trained[name].append(training.weights[name])
                    publish_trained(trained[name], weights_path(name, options.out), progress)


def _to_the_end(
    training: Training, seed: int, progress: Progress, tasks: Mapping[tuple[str, int], TaskID]
) -> None:
    step, steps = training.fleet.step, training.fleet.steps
    for name in training.pending:
        progress.update(tasks[name, seed], total=steps, completed=step)
        if step:
            say(progress, f"{name}: going on from step {step} of {steps}")
    training.to_the_end(progress, {name: tasks[name, seed] for name in training.pending})


def _filling(
    trainees: Sequence[Trainee],
    recipe: Recipe,
    seed: int,
    data: LabelledImages,
    options: Options,
    share: float,
) -> tuple[Recipe, Fleet | None]:
    """The recipe with as many epochs as fit into a share of ``options.fill_s``, and the fleet that was timed.

    Chosen once: what is trained later, and a command that is given again, has the epochs of the first.
    """
    chosen = options.work / EPOCHS_FILE
    if chosen.exists():
        return replace(recipe, epochs=json.loads(chosen.read_text())), None
    assert options.fill_s is not None
    fleet = new_fleet(trainees, recipe, seed, data, options)
    fleet.epochs = fleet.epochs_within(options.fill_s * share)
    options.work.mkdir(parents=True, exist_ok=True)
    chosen.write_text(json.dumps(fleet.epochs))
    print(f"{fleet.epochs} epochs fit into {options.fill_s:.0f} s", flush=True)
    return replace(recipe, epochs=fleet.epochs), fleet


def publish_trained(trained: Sequence[Path], path: Path, progress: Progress) -> None:
    """Write the first of the ``trained`` weights to ``path``, with the accuracies of all."""
    model, info = load_weights(trained[0])
    accuracies = {str(other.seed): other.accuracy or 0.0 for _, other in map(open_weights, trained)}
    save_weights(path, model, replace(info, seed_accuracies=accuracies))
    told = ", ".join(f"{value:.4f} (seed {seed})" for seed, value in accuracies.items())
    say(progress, f"{info.variant}: accuracy {told} -> {path}")


def training_progress(console: Console | None = None) -> Progress:
    """Bars with steps, time left and a status that is told with each update."""
    return Progress(
        TextColumn("{task.description:18}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
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
    """Variants on CIFAR-10 whose weights in ``folder`` miss the paper's accuracy, or are not there.

    Those without weights come first, then those that miss most; in a family that the paper has, a variant
    that it does not have counts as missing its own weights only.
    """
    in_paper = {one.family for one in VARIANTS.values() if one.paper}
    missed = {}
    for variant in VARIANTS.values():
        family = FAMILIES[variant.family]
        if family.name not in in_paper or family.classes != cifar10.CLASSES:
            continue
        path = weights_path(variant.name, folder)
        got = (read_info(path).accuracy or 0.0) if path.exists() else 0.0
        wanted = variant.paper.accuracy if variant.paper else 0.0
        if not path.exists() or got < wanted:
            missed[variant.name] = wanted - got
    return sorted(missed, key=lambda name: -missed[name])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m rootmodels.train", description=__doc__)
    add = result.add_argument
    add(
        "networks",
        nargs="*",
        metavar="NETWORK[@SEED,...]",
        help=f"a model file, by its name in --weights or by its path, or one of {', '.join(VARIANTS)}; with "
        "seeds of its own after an @",
    )
    add("--weights", type=Path, metavar="DIR", help="folder of model files")
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
        help="side of the images the networks see (default: their own); others are scaled",
    )
    add("--recipe", choices=RECIPES, default="short")
    add("--epochs", type=int, help="another number of epochs than the recipe's")
    add("--seeds", type=int, nargs="+", default=[0], help="the first one's weights are written")
    add("--short-of-paper", action="store_true", help="train what misses the paper's accuracy")
    add(
        "--init",
        type=Path,
        metavar="PATH",
        help="start from these weights, a folder or a file (default: model files from their own)",
    )
    add("--minutes", type=float, help="save and stop after this time, with exit status 3")
    add("--fill-minutes", type=float, help="as many epochs as fit into this time, for all networks")
    add(
        "--teacher",
        nargs="+",
        metavar="FILE",
        help="learn as well from this teacher or these weights, a file or a name in --weights; from the "
        "mean of several",
    )
    add("--side-by-side", type=int, help="networks at a time (default: on a GPU all, else one)")
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other numbers of the recipe")
    add_computing(result)
    add("--out", type=Path, help="folder for the weights (default: the shipped ones)")
    add("--work", type=Path, default=Path(".train"), help="folder for checkpoints and logs")
    add("--checkpoint-s", type=float, default=20.0, help="seconds between checkpoints")
    add(
        "--ray",
        metavar="auto|HOST:PORT",
        help="train on the machines of this Ray cluster (extra ray), each network with each seed by itself, "
        "with --threads processors (default: 1); all see --data, --work and what is read",
    )
    return result


def _chosen_recipe(args: argparse.Namespace) -> Recipe:
    """The numbers that were asked for; ends the program where they, or what to train, make no sense."""
    recipe = RECIPES[args.recipe]
    try:
        recipe = with_numbers(recipe, args.set)
    except ValueError as error:
        parser().error(str(error))
    if args.epochs is not None:
        if args.epochs < 1:
            parser().error(f"--epochs is {args.epochs}, expected at least 1")
        recipe = replace(recipe, epochs=args.epochs)
    if recipe.teacher_share and args.teacher is None:
        parser().error(f"teacher_share is {recipe.teacher_share}, expected --teacher FILE")
    if args.teacher and not recipe.teacher_share:
        parser().error("--teacher came, expected --recipe taught, or --set teacher_share=SHARE")
    if args.ray and (args.minutes or args.fill_minutes or args.side_by_side):
        parser().error(
            "--minutes, --fill-minutes and --side-by-side: expected none of them with --ray"
        )
    if bool(args.networks) == args.short_of_paper:
        parser().error("expected networks or --short-of-paper, one of the two")
    return recipe


def _check_out(jobs: Iterable[Trainee], out: Path | None) -> None:
    """Refuse to write over what a training starts from, and model files where the shipped weights are.

    Raises:
        WeightsError: saying so.
    """
    for one in jobs:
        if one.variant.home and out is None:
            raise WeightsError(
                f"{one.name} is a model file; expected a folder for it, as --out DIR"
            )
        path = weights_path(one.name, out or PRETRAINED_DIR)
        if one.start and one.start.resolve() == path.resolve():
            text = f"{one.name} would start from {one.start} and overwrite it"
            raise WeightsError(f"{text}; expected another folder for --out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    began = time.monotonic()
    try:
        args = parser().parse_args(arguments)
        recipe = _chosen_recipe(args)
        computing = chosen_computing(args)
        keep_freed_memory()
        out = args.out or PRETRAINED_DIR
        names = args.networks or short_of_paper(out)
        jobs = find_jobs(names, args.seeds, args.weights, args.init)
        if not jobs:
            return 0
        _check_out(jobs, args.out)
        image_size = one_image_size(jobs, args.image_size)
        with signs(f"reading images of {args.data}"):
            data = read_training_data(args.data, image_size)
        teacher, teacher_name = None, ""
        if args.teacher:
            files = [find_file(word, args.weights) or Path(word) for word in args.teacher]
            teacher, teacher_name = load_teachers(files, data.classes)
            teacher.to(computing.device)
        options = Options(
            work=args.work,
            out=out,
            computing=computing,
            checkpoint_s=args.checkpoint_s,
            side_by_side=args.side_by_side or (len(jobs) if computing.captured else 1),
            fill_s=None if args.fill_minutes is None else args.fill_minutes * 60,
            teacher=teacher,
            teacher_name=teacher_name,
            image_size=image_size,
            classes=data.classes,
            tested_on=data.tested_on,
            stop_at=float("inf") if args.minutes is None else began + args.minutes * 60,
        )
        if args.ray:
            # Imported here: nobody else needs what knows of clusters.
            from rootmodels.distributed.training import train_on_cluster  # noqa: PLC0415

            return train_on_cluster(args, names, jobs, recipe, data, options)
        train(jobs, recipe, (data.train, data.test), options)
    except (DataError, UnknownVariantError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OutOfTimeError as error:
        print(f"out of time at {error}: the same command goes on from here", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
