"""VGG-11 (Simonyan and Zisserman 2015) with root modules, on the images of CIFAR-10.

A family that is added from outside: this file is all of it, and the entry point in ``pyproject.toml`` is how
rootserve finds it. After ``pip install ./examples/vgg11`` its variants are trained, served and analysed as
all others are.

A root module is a 3x3 convolution in filter groups and a 1x1 convolution that mixes them. ``root-g`` has them
in the third, fourth and fifth stage, of g, g/2 and g/4 groups; where that is 1, the 3x3 convolution is whole
and stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from rootmodels import cifar10_facts as cifar10
from rootmodels.family import Family, Variant
from rootmodels.layer import IMAGES, Layer

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Filters of the 3x3 convolutions of each stage, which ends with a max pooling."""


def layers(variant: Variant, size: int, classes: int) -> Iterator[Layer]:
    """Eight 3x3 convolutions, the mean over what pixels are left, and two linear layers."""
    source, channels = IMAGES, 3
    for stage, (widths, groups) in enumerate(zip(STAGES, variant.groups, strict=True), start=1):
        for number, filters in enumerate(widths, start=1):
            name = f"conv{stage}_{number}"
            yield _convolution(name, source, (channels, filters), size, kernel=3, groups=groups)
            source, channels = name, filters
            if groups > 1:
                name = f"mix{stage}_{number}"
                yield _convolution(name, source, (filters, filters), size, kernel=1)
                source = name
        size = (size + 1) // 2  # rounded up, so that small images have a pixel left
        name = f"pool{stage}"
        yield Layer(name, "max_pool", 2, channels, channels, size, (source,), stride=2, ceil=True)
        source = name
    yield Layer("mean", "global_avg_pool", size, channels, channels, 1, (source,))
    yield Layer("fc6", "linear", 1, channels, 512, 1, ("mean",), relu=True, bias=True, path="fc6")
    yield Layer("fc7", "linear", 1, 512, classes, 1, ("fc6",), bias=True, path="fc7")


def _convolution(
    name: str, source: str, channels: tuple[int, int], size: int, *, kernel: int, groups: int = 1
) -> Layer:
    """One that keeps the size, with batch normalisation and ReLU."""
    return Layer(
        name, "conv", kernel, *channels, size, (source,), padding=kernel // 2, groups=groups,
        relu=True, path=f"{name}.conv", norm=f"{name}.norm",
    )  # fmt: skip


def _root(degree: int) -> Variant:
    groups = (1, 1, degree, degree // 2, max(1, degree // 4))
    return Variant("vgg11", "root", degree, groups)


VGG11 = Family(
    name="vgg11",
    image_size=cifar10.SIDE,
    mean=cifar10.MEAN,
    std=cifar10.STD,
    classes=cifar10.CLASSES,
    layers=layers,
    variants=(Variant("vgg11", "orig", 1, (1, 1, 1, 1, 1)), *map(_root, (2, 4, 8, 16))),
)
