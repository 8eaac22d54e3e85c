"""One variant and seed on its way to weights: checkpoint, log, and what is said in the end."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.progress import Progress, TaskID

from rootmodels.cifar10 import LabelledImages
from rootmodels.families import CIFAR10_CLASSES, FAMILIES
from rootmodels.train_init import start_from
from rootmodels.train_run import Recipe, Run, accuracy
from rootmodels.variants import get_variant
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import WeightsInfo, image_size, weights_path


@dataclass(frozen=True, slots=True)
class Options:
    """Where a training run reads and writes, and how it computes."""

    work: Path
    out: Path
    device: torch.device
    init: Path | None = None
    """Weights to start from instead of random ones: a file, or a folder with one for each variant."""
    checkpoint_s: float = 20.0
    """Seconds from one checkpoint to the next."""
    compiled: bool = True
    image_size: int | None = None
    """Height and width of the images that the networks are for; None for their family's."""
    classes: tuple[str, ...] = CIFAR10_CLASSES
    """What the labels stand for."""
    stop_at: float = float("inf")
    """Instant of time.monotonic() at which to save and stop."""


def init_path(name: str, init: Path) -> Path:
    """The weights that ``name`` starts from."""
    return weights_path(name, init) if init.is_dir() else init


class OutOfTimeError(Exception):
    """The time given is over; a checkpoint was written."""


class Training:
    """One variant and seed, with its checkpoint and its log in the work folder.

    The log has one JSON object for each epoch.
    """

    def __init__(
        self, name: str, recipe: Recipe, seed: int, data: LabelledImages, options: Options
    ) -> None:
        self.name, self.options = name, options
        variant = get_variant(name)
        facts = FAMILIES[variant.family]
        self.run = Run(
            name,
            recipe,
            seed,
            data,
            options.device,
            image_size=options.image_size,
            classes=len(options.classes),
            compiled=options.compiled,
        )
        own_size = options.image_size not in (None, facts.image_size)
        self.info = WeightsInfo(
            variant=name,
            accuracy=0.0,
            test_images=0,
            epochs=recipe.epochs,
            seed=seed,
            data_sha256=data.sha256(),
            recipe=asdict(recipe),
            hardware=hardware(options.device),
            classes=options.classes if options.classes != facts.classes else (),
            image_size=options.image_size if own_size else None,
        )
        if options.init:
            self._start_from(init_path(name, options.init))
        identity = json.dumps(replace(self.info, hardware="").content(), sort_keys=True)
        stem = f"{name}-{seed}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        self.checkpoint = options.work / f"{stem}.pt"
        self.log = options.work / f"{stem}.jsonl"
        self.weights = options.work / f"{stem}.safetensors"
        self.seconds = 0.0
        options.work.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._restore()

    def _start_from(self, path: Path) -> None:
        earlier = start_from(path, self.run.model)
        before = {"variant": earlier.variant, "epochs": earlier.epochs, "seed": earlier.seed}
        before |= {"accuracy": earlier.accuracy, "recipe": earlier.recipe}
        self.info = replace(
            self.info, epochs=earlier.epochs + self.info.epochs, continued_from=before
        )

    def _restore(self) -> None:
        saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.run.set_state(saved["state"])
        self.run.step, self.seconds = saved["step"], saved["seconds"]
        # Epochs after the checkpoint will be trained, and logged, once more.
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        done = [line for line in lines if json.loads(line)["step"] <= self.run.step]
        _replace(self.log, "".join(f"{line}\n" for line in done))

    def save(self) -> None:
        """Write the checkpoint, all or nothing."""
        state = {"state": self.run.state(), "step": self.run.step, "seconds": self.seconds}
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def to_the_end(self, progress: Progress, task: TaskID) -> None:
        """Train until the last step.

        Raises:
            OutOfTimeError: if ``options.stop_at`` comes first.
        """
        run = self.run
        saved_at = time.monotonic()
        while run.step < run.steps:
            began = time.monotonic()
            run.train_step()
            ends_epoch = run.step % run.steps_per_epoch == 0
            if ends_epoch or run.step % 10 == 0:
                loss, hits, seen = run.sums.tolist()  # waits for the device
                status = f"loss {loss / seen:.3f}  train {hits / seen:.3f}"
                progress.update(task, completed=run.step, status=status)
            self.seconds += time.monotonic() - began
            if ends_epoch:
                self._log_epoch(loss / seen, hits / seen)
                if not progress.console.is_terminal:
                    say(progress, f"{self.name}: step {run.step} of {run.steps}: {status}")
                run.sums.zero_()
            late = time.monotonic() >= self.options.stop_at
            if ends_epoch or late or time.monotonic() - saved_at > self.options.checkpoint_s:
                self.save()
                saved_at = time.monotonic()
            if late and run.step < run.steps:
                raise OutOfTimeError

    def _log_epoch(self, loss: float, hits: float) -> None:
        epoch = self.run.step // self.run.steps_per_epoch
        line = {"variant": self.name, "seed": self.info.seed, "epoch": epoch, "step": self.run.step}
        line |= {"loss": loss, "train_accuracy": hits, "seconds": round(self.seconds, 3)}
        with self.log.open("a") as file:
            print(json.dumps(line), file=file, flush=True)

    def finish(self, test_data: LabelledImages) -> None:
        """Write ``weights``, with the accuracy of what is written: rounded to the file's precision.

        The checkpoint has done its work then, and goes.
        """
        staged = self.checkpoint.with_suffix(".staged")
        save_weights(staged, self.run.model, self.info)
        rounded, _ = load_weights(staged)
        side = image_size(self.run.model.variant, self.info)
        info = replace(
            self.info,
            accuracy=accuracy(rounded.fold(), test_data, self.options.device, side),
            test_images=len(test_data),
            seconds=round(self.seconds, 1),
        )
        save_weights(self.weights, self.run.model, info)
        staged.unlink()
        self.checkpoint.unlink(missing_ok=True)


def say(progress: Progress, text: str) -> None:
    """Print ``text`` above the progress bars, as it is."""
    progress.print(text, markup=False, highlight=False, soft_wrap=True)


def hardware(device: torch.device) -> str:
    """What computes, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def _cpu_name() -> str:
    """The processor as Linux names it, or its kind."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _replace(path: Path, content: str) -> None:
    partial = path.with_suffix(".partial-log")
    partial.write_text(content)
    partial.replace(path)
