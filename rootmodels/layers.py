"""What a variant is made of, layer by layer, as plain data: the one source for module and cost.

Layer names are the paper's (conv1a ... conv3c). Sizes are in pixels, maps are square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rootmodels.variants import Variant

Kind = Literal["conv", "max_pool", "avg_pool", "global_avg_pool"]

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

# Per-channel mean and standard deviation of the CIFAR-10 training images, in 0..255.
CIFAR10_MEAN = (125.3, 123.0, 113.9)
CIFAR10_STD = (63.0, 62.1, 66.7)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. ``size`` is the height and width of its output; pooling has no parameters."""

    name: str
    kind: Kind
    kernel: int
    in_channels: int
    out_channels: int
    size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1


def network_layers(variant: Variant, image_size: int = 32) -> tuple[Layer, ...]:
    """The layers of ``variant`` in the order they run, for square images of ``image_size`` pixels.

    Network-in-Network: nine convolutions in three blocks, filter groups on conv2a and conv3a, both
    3x3 poolings with stride 2 and ceil mode (the average leaves padding out of its count).
    """
    return tuple(_nin_layers(variant, image_size))


def _nin_layers(variant: Variant, size: int) -> Iterator[Layer]:
    g2, g3 = variant.groups
    classes = len(CIFAR10_CLASSES)

    yield Layer("conv1a", "conv", 5, 3, 192, size, padding=2)
    yield Layer("conv1b", "conv", 1, 192, 160, size)
    yield Layer("conv1c", "conv", 1, 160, 96, size)
    size = _pooled(size)
    yield Layer("pool1", "max_pool", 3, 96, 96, size, stride=2)

    yield Layer("conv2a", "conv", 5, 96, 192, size, padding=2, groups=g2)
    yield Layer("conv2b", "conv", 1, 192, 192, size)
    yield Layer("conv2c", "conv", 1, 192, 192, size)
    size = _pooled(size)
    yield Layer("pool2", "avg_pool", 3, 192, 192, size, stride=2)

    yield Layer("conv3a", "conv", 3, 192, 192, size, padding=1, groups=g3)
    yield Layer("conv3b", "conv", 1, 192, 192, size)
    yield Layer("conv3c", "conv", 1, 192, classes, size)
    yield Layer("pool3", "global_avg_pool", size, classes, classes, 1)


def _pooled(size: int) -> int:
    """Output size of a 3x3 pooling with stride 2 in ceil mode: ceil((size - 3) / 2) + 1."""
    return (size - 2) // 2 + 1
