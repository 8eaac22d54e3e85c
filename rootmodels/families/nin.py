"""Network-in-Network on CIFAR-10. Names of layers are the paper's: conv1a ... conv3c.

Topologies after "Deep Roots: Improving CNN Efficiency with Hierarchical Filter Groups" (Ioannou et
al., CVPR 2017, arXiv 1605.06489). The published figures are those of its appendix, Table 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rootmodels import cifar10_facts as cifar10
from rootmodels.family import Family, PaperFigures, Variant
from rootmodels.layer import IMAGES, Layer


def _layers(variant: Variant, size: int, classes: int) -> Iterator[Layer]:
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


NIN = Family(
    name="nin",
    image_size=cifar10.SIDE,
    mean=cifar10.MEAN,
    std=cifar10.STD,
    classes=cifar10.CLASSES,
    layers=_layers,
    # Groups of conv2a and conv3a.
    variants=(
        Variant("nin", "orig", 1, (1, 1), PaperFigures(0.9211, 39.0, 0.623)),
        Variant("nin", "root", 2, (2, 1), PaperFigures(0.9209, 31.2, 0.551)),
        Variant("nin", "root", 4, (4, 2), PaperFigures(0.9202, 27.6, 0.480)),
        Variant("nin", "root", 8, (8, 4), PaperFigures(0.9215, 24.4, 0.482)),
        Variant("nin", "root", 16, (16, 8), PaperFigures(0.9167, 23.0, 0.475)),
        Variant("nin", "root", 32, (32, 16)),
        Variant("nin", "tree", 2, (2, 4), PaperFigures(0.9185, 31.4, 0.541)),
        Variant("nin", "tree", 4, (4, 8), PaperFigures(0.9147, 29.1, 0.535)),
        Variant("nin", "tree", 8, (8, 16), PaperFigures(0.9171, 25.7, 0.500)),
        Variant("nin", "tree", 16, (16, 32), PaperFigures(0.9168, 20.6, 0.512)),
        Variant("nin", "col", 2, (2, 2), PaperFigures(0.9197, 28.8, 0.568)),
        Variant("nin", "col", 4, (4, 4), PaperFigures(0.9200, 26.1, 0.536)),
        Variant("nin", "col", 8, (8, 8), PaperFigures(0.9192, 23.0, 0.475)),
        Variant("nin", "col", 16, (16, 16), PaperFigures(0.9120, 22.8, 0.494)),
    ),
    paper_rows=128,
)
