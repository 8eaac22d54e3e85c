"""Variants on their way to weights: checkpoint, log, and what is said in the end."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.progress import Progress, TaskID
from torch import nn

from rootmodels.cifar10 import LabelledImages
from rootmodels.cifar10_facts import CLASSES as CIFAR10_CLASSES
from rootmodels.layers import network_layers
from rootmodels.model import Model
from rootmodels.model_file import check_model, open_weights
from rootmodels.network import Network
from rootmodels.processor import cpu_name
from rootmodels.signs import EVERY_S
from rootmodels.train_fleet import Computing, Fleet, variants_fleet
from rootmodels.train_init import start_from
from rootmodels.train_networks import Trainee
from rootmodels.train_recipe import Recipe
from rootmodels.train_run import Run, accuracy
from rootmodels.variants import family_of
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import (
    WeightsInfo,
    being_written,
    file_sha256,
    image_size,
    weights_path,
)


@dataclass(frozen=True, slots=True)
class Options:
    """Where a training reads and writes, and how it computes."""

    work: Path
    out: Path
    computing: Computing
    checkpoint_s: float = 20.0
    """Seconds from one checkpoint to the next."""
    image_size: int | None = None
    """Height and width of the images that the networks are for; None for their family's."""
    classes: tuple[str, ...] = CIFAR10_CLASSES
    """What the labels stand for."""
    stop_at: float = float("inf")
    """Instant of time.monotonic() at which to save and stop."""
    side_by_side: int = 1
    """How many variants are trained at a time, on the same batches."""
    fill_s: float | None = None
    """Seconds into which as many epochs go as fit, instead of the recipe's."""
    teacher: nn.Module | None = None
    teacher_name: str = ""
    """What the metadata says of the teacher: the names of its files, and their accuracies."""
    tested_on: str = ""
    """What the metadata says of the test set."""


class OutOfTimeError(Exception):
    """The time given is over; a checkpoint was written. Its text tells the step."""


class DivergedError(ValueError):
    """The loss of a network is no number any more."""


class Training:
    """Networks trained side by side from one seed, with their checkpoint and log in the work folder.

    ``pending`` are the names of those that have no weights there yet. The log has one JSON object for each
    epoch and network. ``fleet`` is one that :func:`new_fleet` made of the same.
    """

    def __init__(
        self,
        trainees: Sequence[Trainee],
        recipe: Recipe,
        seed: int,
        data: LabelledImages,
        options: Options,
        fleet: Fleet | None = None,
    ) -> None:
        self.options = options
        digest = data.sha256()
        self.infos = {one.name: _info(one, recipe, seed, digest, options) for one in trainees}
        self.weights = {
            name: options.work / f"{_stem([info])}.safetensors" for name, info in self.infos.items()
        }
        pending = [one for one in trainees if not self.weights[one.name].exists()]
        self.pending = [one.name for one in pending]
        self.seconds = 0.0
        if not pending:
            return
        self.fleet = fleet or new_fleet(pending, recipe, seed, data, options)
        stem = _stem([self.infos[name] for name in self.pending])
        self.checkpoint = options.work / f"{stem}.pt"
        self.log = options.work / f"{stem}.jsonl"
        options.work.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._restore()

    def _runs(self) -> list[tuple[str, Run]]:
        return list(zip(self.pending, self.fleet.runs, strict=True))

    def _restore(self) -> None:
        saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.fleet.set_state(saved["states"])
        self.fleet.step, self.seconds = saved["step"], saved["seconds"]
        # Epochs after the checkpoint will be trained, and logged, once more.
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        done = [line for line in lines if json.loads(line)["step"] <= self.fleet.step]
        _replace(self.log, "".join(f"{line}\n" for line in done))

    def save(self) -> None:
        """Write the checkpoint, all or nothing."""
        state = {"states": self.fleet.state(), "step": self.fleet.step, "seconds": self.seconds}
        partial = being_written(self.checkpoint)
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def to_the_end(self, progress: Progress, tasks: dict[str, TaskID]) -> None:
        """Train until the last step.

        Raises:
            DivergedError: if a loss is no number any more.
            OutOfTimeError: if ``options.stop_at`` comes first.
        """
        fleet = self.fleet
        saved_at = told_at = time.monotonic()
        statuses: dict[str, str] = {}
        while fleet.step < fleet.steps:
            began = time.monotonic()
            fleet.train_step()
            ends_epoch = fleet.step % fleet.steps_per_epoch == 0
            if ends_epoch or fleet.step % 10 == 0:
                sums = torch.stack(
                    [run.sums for run in fleet.runs]
                ).tolist()  # waits for the device
            self.seconds += time.monotonic() - began
            if ends_epoch or fleet.step % 10 == 0:
                for name, (loss, hits, seen) in zip(self.pending, sums, strict=True):
                    self._check_loss(name, loss)
                    status = f"loss {loss / seen:.3f}  train {hits / seen:.3f}"
                    progress.update(tasks[name], completed=fleet.step, status=status)
                    statuses[name] = f": {status}"
            if ends_epoch or time.monotonic() - told_at >= EVERY_S:
                told_at = time.monotonic()
                self._tell(progress, statuses)
            if ends_epoch:
                self._log_epoch(sums)
                for run in fleet.runs:
                    run.sums.zero_()
            late = time.monotonic() >= self.options.stop_at
            if late or time.monotonic() - saved_at > self.options.checkpoint_s:
                self.save()
                saved_at = time.monotonic()
            if late and fleet.step < fleet.steps:
                raise OutOfTimeError(f"step {fleet.step} of {fleet.steps}")

    def _tell(self, progress: Progress, statuses: Mapping[str, str]) -> None:
        """Off a terminal, which shows bars, a line for each network: an epoch may take minutes."""
        if not progress.console.is_terminal:
            for name in self.pending:
                at = f"step {self.fleet.step} of {self.fleet.steps}"
                say(progress, f"{name}: {at}{statuses.get(name, '')}")

    def _check_loss(self, name: str, loss: float) -> None:
        """Refuse to go on with what can only be thrown away."""
        if not math.isfinite(loss):
            numbers = self.fleet.batches.recipe
            raise DivergedError(
                f"{name}: at step {self.fleet.step} the loss is {loss}; expected lower rates than muon_lr="
                f"{numbers.muon_lr:g} vector_lr={numbers.vector_lr:g}, as told by --set"
            )

    def _log_epoch(self, sums: Sequence[tuple[float, float, float]]) -> None:
        epoch = self.fleet.step // self.fleet.steps_per_epoch
        with self.log.open("a") as file:
            for name, (loss, hits, seen) in zip(self.pending, sums, strict=True):
                line = {"variant": name, "seed": self.infos[name].seed, "epoch": epoch}
                line |= {"step": self.fleet.step, "loss": loss / seen}
                line |= {"train_accuracy": hits / seen, "seconds": round(self.seconds, 3)}
                print(json.dumps(line), file=file, flush=True)

    def finish(self, test_data: LabelledImages) -> None:
        """Write ``weights``, with the accuracy of what is written: rounded to the file's precision.

        The checkpoint has done its work then, and goes.
        """
        for name, run in self._runs():
            assert isinstance(run.model, Network)
            run.take_averages()
            info = replace(self.infos[name], seconds=round(self.seconds / len(self.pending), 1))
            write_measured(self.weights[name], run.model, info, test_data, self.options.computing)
        self.checkpoint.unlink(missing_ok=True)
        for unfinished in self.options.work.glob(f"{self.checkpoint.stem}.*.partial"):
            unfinished.unlink(missing_ok=True)


def new_fleet(
    trainees: Sequence[Trainee], recipe: Recipe, seed: int, data: LabelledImages, options: Options
) -> Fleet:
    """The networks before their first step.

    Raises:
        DataError: The training set is smaller than one batch.
        FamilyError: A network cannot be for such images, or so many classes.
        WeightsError: The weights to start from cannot be used.
    """
    fleet = variants_fleet(
        [one.variant for one in trainees],
        recipe,
        seed,
        data,
        options.computing,
        image_size=options.image_size,
        classes=len(options.classes),
        teacher=options.teacher,
    )
    for one, run in zip(trainees, fleet.runs, strict=True):
        if one.start:
            assert isinstance(run.model, Network)
            start_from(one.start, run.model)
            run.begin_averages()
    return fleet


def write_measured(
    path: Path,
    model: Network,
    info: WeightsInfo,
    test_data: LabelledImages,
    computing: Computing,
) -> None:
    """Write weights with the accuracy of what is written: rounded to the file's precision."""
    staged = being_written(path)
    save_weights(staged, model, info, served=False)
    rounded, _ = load_weights(staged)
    side = image_size(model.variant, info)
    measured = accuracy(rounded.fold(), test_data, computing.device, side)
    measured_info = replace(info, accuracy=measured, test_images=len(test_data))
    save_weights(path, model, measured_info, served=False)
    staged.unlink()


def trained_file(
    trainee: Trainee, recipe: Recipe, seed: int, data_sha256: str, options: Options
) -> Path:
    """Where the weights of that training are in the work folder, once it has ended; it trains alone.

    Its log has the same name with the suffix ``.jsonl``.

    Raises:
        FamilyError, WeightsError: as :class:`Training`.
    """
    info = _info(trainee, recipe, seed, data_sha256, options)
    return options.work / f"{_stem([info])}.safetensors"


def _info(
    trainee: Trainee, recipe: Recipe, seed: int, data_sha256: str, options: Options
) -> WeightsInfo:
    """What the weights will say of themselves, but for the accuracy.

    Raises:
        FamilyError: The network cannot be for such images, or so many classes.
        WeightsError: The weights to start from cannot be read, or no file could be written in the end.
    """
    variant = trainee.variant
    family = family_of(variant)
    own_size = options.image_size not in (None, family.image_size)
    numbers = asdict(recipe)
    if options.teacher_name:
        numbers["teacher"] = options.teacher_name
    info = WeightsInfo(
        variant=trainee.name,
        accuracy=0.0,
        test_images=0,
        epochs=recipe.epochs,
        seed=seed,
        data_sha256=data_sha256,
        recipe=numbers,
        hardware=hardware(options.computing.device),
        precision="bf16" if options.computing.dtype == torch.bfloat16 else "fp32",
        classes=options.classes if options.classes != family.classes else (),
        image_size=options.image_size if own_size else None,
        tested_on=options.tested_on,
    )
    if trainee.start:
        source, earlier = open_weights(trainee.start)
        before = {"variant": earlier.variant, "epochs": earlier.epochs, "seed": earlier.seed}
        before |= {"accuracy": earlier.accuracy, "recipe": earlier.recipe}
        if source.home:
            # Two files that nobody has trained tell the same of themselves.
            before["sha256"] = file_sha256(trainee.start)
        info = replace(info, epochs=earlier.epochs + info.epochs, continued_from=before)
    if variant.home:
        # Before it is trained, not after.
        layers = network_layers(variant, options.image_size, len(options.classes))
        check_model(weights_path(trainee.name, options.out), Model.of(variant, layers, info))
    return info


def _stem(infos: Sequence[WeightsInfo]) -> str:
    """What the files of a training are called: the variants, the seed, and a hash of all that matters."""
    told = [replace(info, hardware="", tested_on="").content() for info in infos]
    identity = json.dumps(told, sort_keys=True)
    names = infos[0].variant if len(infos) == 1 else f"{len(infos)}-variants"
    return f"{names}-{infos[0].seed}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def say(progress: Progress, text: str) -> None:
    """Print ``text`` above the progress bars, as it is."""
    progress.print(text, markup=False, highlight=False, soft_wrap=True)


def hardware(device: torch.device) -> str:
    """What computes, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def _replace(path: Path, content: str) -> None:
    partial = being_written(path)
    partial.write_text(content)
    partial.replace(path)
