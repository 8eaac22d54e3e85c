"""ResNet-50 (He et al. 2016) on ImageNet, with filter groups on its 3x3 convolutions.

Names of layers are those of the published Caffe model, which the paper's figures use: conv1, res2a_branch2a
... res5c, fc. Paths are torchvision's: conv1, layer1.0.conv1 ... layer4.2, fc. The published figures are
those of "Deep Roots" (Ioannou et al., CVPR 2017, arXiv 1605.06489).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rootmodels.family import UNNAMED_CLASSES, Family, PaperFigures, Variant
from rootmodels.layer import IMAGES, Layer

_STAGE_BLOCKS = (3, 4, 6, 3)
"""Bottlenecks of the stages res2 ... res5."""

_V1_5 = "v1.5"
"""Not in the paper: the stride on the 3x3 convolution, as torchvision and most published weights have it."""

_EXPANSION = 4
"""A bottleneck's last convolution has so many times the filters of its 3x3 convolution."""


@dataclass(frozen=True, slots=True)
class _Block:
    """A bottleneck: 1x1, 3x3 in ``groups``, 1x1, and the sum with its input or a projection of it.

    The stride is that of the first 1x1 or of the 3x3 convolution, and of the projection.
    """

    name: str
    path: str
    source: str
    in_channels: int
    width: int
    groups: int
    in_size: int
    stride: int
    stride_on_3x3: bool
    projects: bool

    @property
    def out_channels(self) -> int:
        return self.width * _EXPANSION

    @property
    def size(self) -> int:
        return _halved(self.in_size) if self.stride == 2 else self.in_size

    def layers(self) -> Iterator[Layer]:
        width, wide = self.width, self.out_channels
        first, second = (1, self.stride) if self.stride_on_3x3 else (self.stride, 1)
        middle = self.in_size if first < self.stride else self.size
        a, b, c = (f"{self.name}_branch2{letter}" for letter in "abc")
        shortcut = self.source
        if self.projects:
            shortcut = f"{self.name}_branch1"
            yield self._convolution(
                shortcut, "downsample.0", "downsample.1", self.source, self.in_channels, wide,
                kernel=1, size=self.size, stride=self.stride,
            )  # fmt: skip
        yield self._convolution(
            a, "conv1", "bn1", self.source, self.in_channels, width,
            kernel=1, size=middle, stride=first, relu=True,
        )  # fmt: skip
        yield self._convolution(
            b, "conv2", "bn2", a, width, width,
            kernel=3, size=self.size, stride=second, padding=1, groups=self.groups, relu=True,
        )  # fmt: skip
        yield self._convolution(c, "conv3", "bn3", b, width, wide, kernel=1, size=self.size)
        yield Layer(
            self.name, "add", 1, wide, wide, self.size, (c, shortcut), relu=True, path=self.path
        )

    def _convolution(  # noqa: PLR0913 - the columns of a table
        self, name: str, conv: str, norm: str, source: str, in_channels: int, out_channels: int,
        *, kernel: int, size: int, **more: Any,
    ) -> Layer:  # fmt: skip
        return Layer(
            name, "conv", kernel, in_channels, out_channels, size, (source,),
            path=f"{self.path}.{conv}", norm=f"{self.path}.{norm}", **more,
        )  # fmt: skip


def _layers(variant: Variant, size: int, classes: int) -> Iterator[Layer]:
    """conv1, a max pooling, sixteen bottlenecks in four stages, the mean over pixels and a linear layer.

    Convolutions have no bias of their own. The model that the paper measured has one on conv1, which its
    FLOPS count.
    """
    size = _halved(size)
    yield Layer(
        "conv1", "conv", 7, 3, 64, size, (IMAGES,), 2,
        padding=3, relu=True, paper_bias=True, path="conv1", norm="bn1",
    )  # fmt: skip
    size = _halved(size)
    yield Layer("pool1", "max_pool", 3, 64, 64, size, ("conv1",), 2, padding=1, path="maxpool")

    source, channels = "pool1", 64
    for stage, (blocks, groups) in enumerate(zip(_STAGE_BLOCKS, variant.groups, strict=True)):
        for index in range(blocks):
            block = _Block(
                name=f"res{stage + 2}{'abcdef'[index]}",
                path=f"layer{stage + 1}.{index}",
                source=source,
                in_channels=channels,
                width=64 * 2**stage,
                groups=groups,
                in_size=size,
                stride=2 if stage > 0 and index == 0 else 1,
                stride_on_3x3=variant.revision == _V1_5,
                projects=index == 0,
            )
            yield from block.layers()
            source, channels, size = block.name, block.out_channels, block.size

    yield Layer("pool5", "global_avg_pool", size, channels, channels, 1, (source,), path="avgpool")
    yield Layer("fc", "linear", 1, channels, classes, 1, ("pool5",), bias=True, path="fc")


def _halved(size: int) -> int:
    """Output size of stride 2 with padding (kernel - 1) / 2: ceil(size / 2)."""
    return (size + 1) // 2


def _root(degree: int, paper: PaperFigures) -> Variant:
    """A variant of the paper: the degree is halved from stage to stage."""
    groups = tuple(max(1, degree // 2**stage) for stage in range(len(_STAGE_BLOCKS)))
    return Variant("resnet50", "orig" if degree == 1 else "root", degree, groups, paper)


RESNET50 = Family(
    name="resnet50",
    image_size=224,
    # What torchvision uses for ImageNet, times 255.
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    classes=UNNAMED_CLASSES,
    layers=_layers,
    # Groups of the 3x3 convolutions of the stages res2 to res5.
    variants=(
        _root(1, PaperFigures(0.7299, 621.0, 11.65, top5=0.9157)),
        _root(2, PaperFigures(0.7271, 520.4, 11.08, top5=0.9121)),
        _root(4, PaperFigures(0.7339, 565.6, 11.33, top5=0.9181)),
        _root(8, PaperFigures(0.7337, 519.3, 10.71, top5=0.9183)),
        _root(16, PaperFigures(0.7324, 478.8, 10.14, top5=0.9176)),
        _root(32, PaperFigures(0.7292, 469.2, 10.07, top5=0.9147)),
        _root(64, PaperFigures(0.7319, 425.7, 10.17, top5=0.9153)),
        Variant("resnet50", "orig", 1, (1, 1, 1, 1), revision=_V1_5),
    ),
    crop=Fraction(224, 256),
    paper_rows=10,
)
