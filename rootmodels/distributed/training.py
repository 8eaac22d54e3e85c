"""Trainings on a cluster: each network with each seed is a task, which goes on elsewhere when its node dies.

What it has learnt until then is in its checkpoint, in the work folder that all nodes share.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from rich.progress import Progress, TaskID

from rootmodels.distributed.joining import joined
from rootmodels.distributed.tasks import Failure, Needs, OnCluster, Tasks
from rootmodels.teacher import load_teachers
from rootmodels.train import keep_freed_memory, publish_trained, training_progress
from rootmodels.train_data import TrainingData, read_training_data
from rootmodels.train_job import Options, Training, say, trained_file
from rootmodels.train_networks import Trainee, find_file, find_jobs
from rootmodels.train_options import chosen_computing
from rootmodels.train_recipe import Recipe
from rootmodels.weights_info import weights_path

_LOOK_S = 1.0
"""The logs of trainings are read so often."""

Key = tuple[str, int]
"""Name of a network, and a seed."""


@dataclass(frozen=True, slots=True)
class Order:
    """One training, in words that mean the same on every node; paths are absolute."""

    word: str
    seed: int
    recipe: Recipe
    data: Path
    threads: int
    options: Options
    weights: Path | None = None
    init: Path | None = None
    teachers: tuple[Path, ...] = ()


def train_one(order: Order) -> Path:
    """Train to the end, from the checkpoint if there is one; the path of the weights in the work folder.

    Raises:
        DataError, FamilyError, UnknownVariantError, WeightsError, DivergedError: as :class:`Training`.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(order.threads)
    keep_freed_memory()
    try:
        (trainee,) = find_jobs([order.word], [order.seed], order.weights, order.init)
        assert order.options.image_size is not None
        data = _read(order.data, order.options.image_size)
        options = order.options
        if order.teachers:
            teacher, _ = load_teachers(order.teachers, data.classes)
            options = replace(options, teacher=teacher.to(options.computing.device))
        training = Training([trainee], order.recipe, order.seed, data.train, options)
        if training.pending:
            with Progress(console=Console(), disable=True) as progress:
                task = progress.add_task(trainee.name, total=None)
                training.to_the_end(progress, {trainee.name: task})
            training.finish(data.test)
        return training.weights[trainee.name]
    finally:
        torch.set_num_threads(before)


@functools.lru_cache(maxsize=1)
def _read(path: Path, image_size: int) -> TrainingData:
    """A process trains one network after the other on the same images."""
    return read_training_data(path, image_size)


def train_on_cluster(
    args: argparse.Namespace,
    names: Sequence[str],
    jobs: Mapping[Trainee, Sequence[int]],
    recipe: Recipe,
    data: TrainingData,
    options: Options,
) -> int:
    """What ``python -m rootmodels.train --ray`` does; the exit status, 2 if a training failed.

    Args:
        args: The command line.
        names: The networks as they were named there, in the order of ``jobs``.
        jobs: The seeds of each network.
        recipe: The numbers.
        data: What is trained on, as this machine reads it.
        options: As they would be on this machine; the device is that of the cluster, unless it was told.

    Raises:
        ClusterError: as :func:`rootmodels.distributed.joining.joined`, or if the cluster went away.
    """
    options.work.mkdir(parents=True, exist_ok=True)
    needed = [args.data, options.work, args.weights, args.init]
    folders = [path for path in needed if path is not None and path.exists()]
    # What is written to sys.stdout while the cluster is joined goes nowhere.
    console = Console(file=sys.stdout)
    threads = args.threads or 1
    with joined(args.ray, folders) as cluster:
        if args.device is None:
            gpu = any(node.gpus >= 1 for node in cluster.nodes())
            args.device = "cuda" if gpu else "cpu"
        computing = chosen_computing(args)
        options = replace(
            options, work=options.work.resolve(), out=options.out.resolve(), computing=computing
        )
        orders = {
            (trainee.name, seed): _order(args, name, seed, recipe, options, threads)
            for name, (trainee, seeds) in zip(names, jobs.items(), strict=True)
            for seed in seeds
        }
        logs = _logs(jobs, recipe, data.train.sha256(), options)
        with training_progress(console) as progress:
            steps = recipe.epochs * (len(data.train) // recipe.batch_size)
            watch = _Watch(progress, logs, steps)
            needs = Needs(threads, int(computing.device.type == "cuda"))
            tasks = OnCluster(cluster, needs, lambda line: say(progress, line), watch.look)
            return _run(tasks, orders, jobs, options.out, progress, watch)


def _order(
    args: argparse.Namespace,
    name: str,
    seed: int,
    recipe: Recipe,
    options: Options,
    threads: int,
) -> Order:
    word = str(Path(name).resolve()) if name.endswith(".safetensors") else name.partition("@")[0]
    weights = args.weights and args.weights.resolve()
    teachers = [find_file(each, args.weights) or Path(each) for each in args.teacher or ()]
    return Order(
        word,
        seed,
        recipe,
        args.data.resolve(),
        threads,
        # A task loads the teacher itself: sent along, it would be sent with each.
        replace(options, teacher=None),
        weights,
        args.init and args.init.resolve(),
        tuple(path.resolve() for path in teachers),
    )


def _logs(
    jobs: Mapping[Trainee, Sequence[int]], recipe: Recipe, data_sha256: str, options: Options
) -> dict[Key, Path]:
    # This machine may have no such device, and files are called the same whatever computes.
    here = replace(
        options, computing=replace(options.computing, device=torch.device("cpu")), teacher=None
    )
    return {
        (trainee.name, seed): trained_file(trainee, recipe, seed, data_sha256, here).with_suffix(
            ".jsonl"
        )
        for trainee, seeds in jobs.items()
        for seed in seeds
    }


def _run(
    tasks: Tasks,
    orders: Mapping[Key, Order],
    jobs: Mapping[Trainee, Sequence[int]],
    out: Path,
    progress: Progress,
    watch: _Watch,
) -> int:
    for key, order in orders.items():
        tasks.add(key, train_one, order)
    trained: dict[Key, Path] = {}
    failed: dict[Key, Failure] = {}
    for done, result in tasks.finished():
        key = cast("Key", done)
        if isinstance(result, Failure):
            failed[key] = result
            continue
        trained[key] = result
        watch.ended(key)
        for trainee, seeds in jobs.items():
            keys = [(trainee.name, seed) for seed in seeds]
            if key in keys and all(each in trained for each in keys):
                paths = [trained[each] for each in keys]
                publish_trained(paths, weights_path(trainee.name, out), progress)
    for (name, seed), failure in failed.items():
        print(f"error: {name} seed {seed}: {failure.error}", file=sys.stderr)
    return 2 if failed else 0


class _Watch:
    """How far trainings are, as their logs say: a line of JSON for each epoch."""

    def __init__(self, progress: Progress, logs: Mapping[Key, Path], steps: int) -> None:
        self._progress = progress
        self._logs = logs
        self._steps = steps
        self._bars: dict[Key, TaskID] = {
            key: progress.add_task(f"{key[0]} seed {key[1]}", total=steps, status="")
            for key in logs
        }
        self._seen: dict[Key, str] = {}
        self._looked_s = 0.0

    def look(self) -> None:
        """Read the logs once more, unless that was just done."""
        if time.monotonic() < self._looked_s + _LOOK_S:
            return
        self._looked_s = time.monotonic()
        for key in self._logs:
            self._look_at(key)

    def ended(self, key: Key) -> None:
        """Nothing more will come of ``key``."""
        self._look_at(key)
        self._progress.update(self._bars[key], completed=self._steps, status="done")

    def _look_at(self, key: Key) -> None:
        try:
            last = self._logs[key].read_text().splitlines()[-1]
            line = json.loads(last)
            step, loss, hits = line["step"], line["loss"], line["train_accuracy"]
        except (OSError, IndexError, ValueError, KeyError):
            return  # not begun, or in the middle of a line: there is a next time
        if self._seen.get(key) == last:
            return
        self._seen[key] = last
        status = f"loss {loss:.3f}  train {hits:.3f}"
        self._progress.update(self._bars[key], completed=step, status=status)
        if not self._progress.console.is_terminal:
            say(self._progress, f"{key[0]} seed {key[1]}: step {step} of {self._steps}: {status}")
