"""Whom the variants learn from: a residual network made for that, trained variants, or several of them.

The residual network is trained once, on the images alone, and never served. Its first layers and its end are
those of Network-in-Network, a convolution for each class and a global average, so that the same optimisers
train both.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from rootmodels import cifar10_facts as cifar10
from rootmodels.family import unnamed
from rootmodels.model_file import open_weights
from rootmodels.train_data import check_classes
from rootmodels.weights import load_weights
from rootmodels.weights_info import WeightsError, class_names, publish

WIDTHS = (64, 128, 256, 512)
"""Filters of the first convolution, and of the three stages."""

METADATA_KEY = "rootserve-teacher"


def _convolution(inputs: int, filters: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, filters, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(filters),
    )


class _Stage(nn.Module):
    """A convolution that widens, a pooling, and a residual block of two convolutions, all 3x3."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.widen = _convolution(inputs, filters)
        self.first = _convolution(filters, filters)
        self.second = _convolution(filters, filters)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, filters, H / 2, W / 2]."""
        x = functional.relu(functional.max_pool2d(self.widen(x), 2))
        return functional.relu(x + self.second(functional.relu(self.first(x))))


class Teacher(nn.Module):
    """RGB images [N, 3, H, W] in 0..255 -> logits [N, classes]; He et al. 2016 in small."""

    mean: Tensor
    std: Tensor

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        for name, values in (("mean", cifar10.MEAN), ("std", cifar10.STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.stem = _convolution(3, WIDTHS[0])
        pairs = itertools.pairwise(WIDTHS)
        self.stages = nn.ModuleList(_Stage(inputs, filters) for inputs, filters in pairs)
        self.head = _convolution(WIDTHS[-1], classes, 1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, classes]."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        x = functional.relu(self.stem(x.contiguous(memory_format=torch.channels_last)))
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.head(functional.adaptive_max_pool2d(x, 1)).flatten(1)
        return logits


@dataclass(frozen=True, slots=True)
class TeacherInfo:
    """How a teacher came to be: accuracy on what was held out of the training set, 0..1."""

    accuracy: float
    epochs: int
    train_images: int
    held_out: int
    classes: int
    data_sha256: str
    recipe: dict[str, Any]
    hardware: str = ""
    seconds: float = 0.0


def save_teacher(path: Path, teacher: Teacher, info: TeacherInfo) -> None:
    """Write ``teacher`` in fp16, its vectors in fp32, and ``info`` to ``path``, all or nothing."""
    tensors = {
        key: (value.half() if value.ndim > 1 else value).contiguous().cpu()
        for key, value in teacher.state_dict().items()
    }
    content = {name: getattr(info, name) for name in TeacherInfo.__slots__}
    metadata = {METADATA_KEY: json.dumps(content)}
    publish(path, lambda partial: save_file(tensors, partial, metadata))


def load_teacher(path: Path) -> tuple[Teacher, TeacherInfo]:
    """The teacher at ``path``, in ``eval`` mode.

    Raises:
        WeightsError: if the file is no teacher.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        info = TeacherInfo(**json.loads(metadata[METADATA_KEY]))
        teacher = Teacher(info.classes)
        teacher.load_state_dict(load_file(path))
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} is no teacher ({reason}); expected a file written by "
            "python -m rootmodels.train_teacher"
        ) from error
    return teacher.eval(), info


class Teachers(nn.Module):
    """Several networks as one: the mean of their logits."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images [N, 3, H, W] in 0..255 -> logits [N, classes]."""
        total: Tensor = sum(network(images).float() for network in self.networks)
        return total / len(self.networks)


def load_teachers(paths: Sequence[Path], classes: Sequence[str]) -> tuple[nn.Module, str]:
    """The teacher that the files at ``paths`` are together, in ``eval`` mode, and what it is, in words.

    Each is a file of :func:`save_teacher`, a model file, or the weights of a variant. Where it names its
    classes, these must be ``classes``.

    Raises:
        WeightsError: if a file is none of them, or tells other classes apart.
    """
    networks: list[nn.Module] = []
    words = []
    for path in paths:
        network: nn.Module
        if _holds_network(path):
            network, info = load_weights(path)
            network.fold()
            names, accuracy = class_names(network.variant, info), info.accuracy or 0.0
        else:
            network, about = load_teacher(path)
            names, accuracy = unnamed(about.classes), about.accuracy
        check_classes(path, names, "the data", classes)
        networks.append(network)
        words.append(f"{path.stem}, {accuracy:.4f}")
    teacher = networks[0] if len(networks) == 1 else Teachers(networks)
    return teacher.eval(), "; ".join(words)


def _holds_network(path: Path) -> bool:
    try:
        open_weights(path)
    except WeightsError:
        return False
    return True
