"""The layers of Network-in-Network. Names are the paper's: conv1a ... conv3c."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rootmodels.layer import IMAGES, Layer
from rootmodels.variants import Variant


def nin_layers(variant: Variant, size: int, classes: int) -> Iterator[Layer]:
    """Nine convolutions in three blocks, one after the other, filter groups on conv2a and conv3a.

    Both 3x3 poolings have stride 2 and ceil mode; the average leaves padding out of its count.
    """
    previous = IMAGES
    for layer in _rows(variant, size, classes):
        yield replace(layer, inputs=(previous,))
        previous = layer.name


def _rows(variant: Variant, size: int, classes: int) -> Iterator[Layer]:
    g2, g3 = variant.groups

    yield _conv("conv1a", 5, 3, 192, size)
    yield _conv("conv1b", 1, 192, 160, size)
    yield _conv("conv1c", 1, 160, 96, size)
    size = _pooled(size)
    yield Layer("pool1", "max_pool", 3, 96, 96, size, stride=2, ceil=True)

    yield _conv("conv2a", 5, 96, 192, size, groups=g2)
    yield _conv("conv2b", 1, 192, 192, size)
    yield _conv("conv2c", 1, 192, 192, size)
    size = _pooled(size)
    yield Layer("pool2", "avg_pool", 3, 192, 192, size, stride=2, ceil=True)

    yield _conv("conv3a", 3, 192, 192, size, groups=g3)
    yield _conv("conv3b", 1, 192, 192, size)
    yield _conv("conv3c", 1, 192, classes, size)
    yield Layer("pool3", "global_avg_pool", size, classes, classes, 1)


def _conv(
    name: str, kernel: int, in_channels: int, out_channels: int, size: int, groups: int = 1
) -> Layer:
    """A convolution that keeps the size, with a bias of its own, batch normalisation and ReLU."""
    return Layer(
        name,
        "conv",
        kernel,
        in_channels,
        out_channels,
        size,
        padding=kernel // 2,
        groups=groups,
        relu=True,
        bias=True,
        path=f"body.{name}.conv",
        norm=f"body.{name}.norm",
    )


def _pooled(size: int) -> int:
    """Output size of a 3x3 pooling with stride 2 in ceil mode: ceil((size - 3) / 2) + 1."""
    return (size - 2) // 2 + 1
