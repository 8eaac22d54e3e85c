"""Train variants on CIFAR-10: ``python -m rootmodels.train nin-root-16 nin-orig --data DIR``.

SGD with Nesterov momentum, a one-cycle learning rate, label smoothing, random crops and mirroring,
bf16 autocast, and an exponential average of the weights, which is what is evaluated and written.

Everything random is drawn from (seed, epoch) or (seed, step), and a checkpoint holds the whole state
between two steps: killed at any moment and started again with as many threads, a run ends with the
same weights.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.data_error import DataError
from rootmodels.layers import CIFAR10_MEAN
from rootmodels.nin import NetworkInNetwork
from rootmodels.variants import VARIANTS, UnknownVariantError, get_variant
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import PRETRAINED_DIR, WeightsInfo, weights_path


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of a training run; written into the metadata of the weights."""

    epochs: int = 6
    batch_size: int = 128
    peak_lr: float = 0.2
    warmup: float = 0.25  # share of the steps in which the learning rate rises
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    crop_padding: int = 4  # pixels
    average_decay: float = 0.99  # of the weights' exponential average, per step


def one_cycle(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of ``step`` out of ``steps``: a straight line up to the peak, another to zero.

    After Smith and Topin, "Super-Convergence", 2018.
    """
    top = recipe.warmup * steps
    if step < top:
        return recipe.peak_lr * (step + 1) / (top + 1)
    return recipe.peak_lr * (steps - step) / (steps - top)


def augment(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Random crops of images padded by ``padding`` pixels, every other one mirrored.

    uint8 [N, 3, S, S] -> uint8 [N, 3, S, S]. The padding has the data's mean colour, which is zero
    after normalisation. ``generator`` lives on the CPU, so that every device draws the same numbers.
    """
    count, channels, size = images.shape[:3]
    mean = images.new_tensor([round(value) for value in CIFAR10_MEAN]).view(1, 3, 1, 1)
    padded = mean.repeat(count, 1, size + 2 * padding, size + 2 * padding)
    padded[:, :, padding : padding + size, padding : padding + size] = images

    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    rows = offsets[0] + torch.arange(size)
    columns = offsets[1] + torch.arange(size)
    columns = torch.where(mirrored, columns.flip(1), columns)

    device = images.device
    return padded[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        rows.to(device)[:, None, :, None],
        columns.to(device)[:, None, None, :],
    ]


class Run:
    """One variant's training: model, optimiser and average, which can be saved between two steps."""

    def __init__(
        self, name: str, recipe: Recipe, seed: int, data: LabelledImages, device: torch.device
    ) -> None:
        torch.manual_seed(seed)
        self.name, self.recipe, self.seed, self.device = name, recipe, seed, device
        self.images = torch.from_numpy(data.images).to(device)
        self.labels = torch.from_numpy(data.labels).to(device)
        self.data_sha256 = data.sha256()
        if len(data) < recipe.batch_size:
            text = f"the training set has {len(data)} images, expected at least one batch, "
            raise DataError(f"{text}{recipe.batch_size}")
        self.steps_per_epoch = len(data) // recipe.batch_size
        self.steps = self.steps_per_epoch * recipe.epochs
        self.step = 0

        self.model = NetworkInNetwork(get_variant(name)).to(device)
        self.average = AveragedModel(
            self.model,
            multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.SGD(
            [
                {"params": decayed, "weight_decay": recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=recipe.peak_lr,
            momentum=recipe.momentum,
            nesterov=True,
        )

    def train_step(self) -> tuple[float, float]:
        """Do one step; return the batch's loss and accuracy."""
        recipe = self.recipe
        epoch, index = divmod(self.step, self.steps_per_epoch)
        rows = self._order(epoch)[index * recipe.batch_size : (index + 1) * recipe.batch_size]
        rows = rows.to(self.device)
        images = augment(self.images[rows], recipe.crop_padding, self._generator(1, self.step))
        labels = self.labels[rows]

        for group in self.optimizer.param_groups:
            group["lr"] = one_cycle(self.step, self.steps, recipe)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model(images).float()
            loss = nn.functional.cross_entropy(
                logits, labels, label_smoothing=recipe.label_smoothing
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.step += 1
        return loss.item(), (logits.argmax(1) == labels).float().mean().item()

    @functools.lru_cache(maxsize=1)  # noqa: B019 - a run lives as long as its process
    def _order(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.labels), generator=self._generator(0, epoch))

    def _generator(self, purpose: int, index: int) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}/{purpose}/{index}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))

    def save(self, path: Path) -> None:
        """Write the whole state to ``path``, all or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "step": self.step,
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            partial,
        )
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from the state at ``path``."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def averaged_model(self) -> NetworkInNetwork:
        """The average of the weights, as a module in training form."""
        model = self.average.module
        assert isinstance(model, NetworkInNetwork)
        return model


@torch.inference_mode()
def accuracy(model: nn.Module, data: LabelledImages, device: torch.device) -> float:
    """Top-1 accuracy of ``model`` in fp32 over all of ``data``."""
    model = model.eval().to(device)
    correct = 0
    for start in range(0, len(data), 250):
        images = torch.from_numpy(data.images[start : start + 250]).to(device)
        labels = torch.from_numpy(data.labels[start : start + 250]).to(device)
        correct += int((model(images).argmax(1) == labels).sum())
    return correct / len(data)


@dataclass(frozen=True, slots=True)
class Options:
    """Where a training run reads and writes."""

    work: Path
    out: Path
    device: torch.device
    checkpoint_every: int = 100
    """Steps from one checkpoint to the next."""


def train(
    name: str,
    recipe: Recipe,
    seed: int,
    train_data: LabelledImages,
    test_data: LabelledImages,
    options: Options,
) -> WeightsInfo:
    """Train ``name``, going on from its checkpoint if there is one; write and return its weights."""
    run = Run(name, recipe, seed, train_data, options.device)
    identity = json.dumps([asdict(recipe), seed, run.data_sha256], sort_keys=True)
    stem = f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    checkpoint = options.work / f"{stem}.pt"
    log = options.work / f"{stem}.jsonl"
    if checkpoint.exists():
        run.restore(checkpoint)
        print(f"{name}: going on from step {run.step} of {run.steps} ({checkpoint})", flush=True)

    options.work.mkdir(parents=True, exist_ok=True)
    with _progress() as progress, log.open("a") as log_file:
        task = progress.add_task(name, total=run.steps, completed=run.step, status="")
        loss = hits = seen = 0.0
        began = time.monotonic()
        while run.step < run.steps:
            step_loss, step_hits = run.train_step()
            loss, hits, seen = loss + step_loss, hits + step_hits, seen + 1
            rate = seen * recipe.batch_size / (time.monotonic() - began)
            status = f"loss {loss / seen:.3f}  train {hits / seen:.3f}  {rate:.0f} images/s"
            progress.update(task, completed=run.step, status=status)
            if run.step % options.checkpoint_every == 0 or run.step == run.steps:
                run.save(checkpoint)
            if run.step % run.steps_per_epoch == 0:
                epoch = run.step // run.steps_per_epoch
                line = {"variant": name, "epoch": epoch, "step": run.step, "loss": loss / seen}
                line |= {"train_accuracy": hits / seen, "images_per_s": rate}
                print(json.dumps(line), file=log_file, flush=True)
                if not progress.console.is_terminal:
                    print(f"{name}: epoch {epoch} of {recipe.epochs}: {status}", flush=True)
                loss = hits = seen = 0.0
                began = time.monotonic()

    info = WeightsInfo(
        variant=name,
        accuracy=0.0,
        test_images=len(test_data),
        epochs=recipe.epochs,
        seed=seed,
        data_sha256=run.data_sha256,
        recipe=asdict(recipe),
    )
    # What is measured is what is written: the weights after rounding to the file's precision.
    path = weights_path(name, options.out)
    staged = options.work / f"{stem}.safetensors"
    save_weights(staged, run.averaged_model(), info)
    rounded, _ = load_weights(staged)
    info = replace(info, accuracy=accuracy(rounded.fold(), test_data, options.device))
    save_weights(path, run.averaged_model(), info)
    staged.unlink()
    print(
        f"{name}: accuracy {info.accuracy:.4f} on {info.test_images} images -> {path}", flush=True
    )
    return info


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:12}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )


def _keep_freed_memory() -> None:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of ``python -m rootmodels.train``."""
    defaults = Recipe()
    parser = argparse.ArgumentParser(prog="python -m rootmodels.train", description=__doc__)
    parser.add_argument("variants", nargs="+", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10 in parquet")
    parser.add_argument("--epochs", type=int, default=defaults.epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--out", type=Path, default=PRETRAINED_DIR, help="folder for the weights")
    parser.add_argument("--work", type=Path, default=Path(".train"), help="folder for checkpoints")
    parser.add_argument("--checkpoint-every", type=int, default=100, metavar="STEPS")
    args = parser.parse_args(arguments)
    if args.epochs < 1:
        parser.error(f"--epochs is {args.epochs}, expected at least 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    _keep_freed_memory()
    try:
        for name in args.variants:
            get_variant(name)
        train_data = read_cifar10(args.data, "train")
        test_data = read_cifar10(args.data, "test")
        options = Options(args.work, args.out, torch.device(args.device), args.checkpoint_every)
        recipe = replace(defaults, epochs=args.epochs)
        for name in args.variants:
            train(name, recipe, args.seed, train_data, test_data, options)
    except (DataError, UnknownVariantError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
