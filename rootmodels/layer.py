"""One layer of a network as plain data, and how to find one by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["conv", "max_pool", "avg_pool", "global_avg_pool", "add", "linear"]

IMAGES = "images"
"""What the first layer takes: the normalised images."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One node of a network's graph.

    ``inputs`` name what it takes: other layers, or IMAGES. ``add`` is the sum of its two inputs, any other
    kind takes one. ``size`` is the height and width of its output, in pixels; a linear layer counts as a 1x1
    convolution of one pixel. ``relu`` is whether a ReLU follows, and is part of the layer.
    """

    name: str
    """The paper's name."""
    kind: Kind
    kernel: int
    in_channels: int
    out_channels: int
    size: int
    inputs: tuple[str, ...] = ()
    stride: int = 1
    padding: int = 0
    groups: int = 1
    ceil: bool = False
    """Whether the size of a pooling's output is rounded up."""
    relu: bool = False
    bias: bool = False
    """Whether it has a bias of its own, besides the one that a folded normalisation leaves."""
    paper_bias: bool = False
    """Whether the paper's FLOPS count a bias that this network has not."""
    path: str = ""
    """Where it is in the torch module, which for ResNet-50 is torchvision's name of it."""
    norm: str = ""
    """Where its batch normalisation is; "" if it has none."""

    @property
    def has_weights(self) -> bool:
        """Whether it is a convolution or a linear layer."""
        return self.kind in ("conv", "linear")

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """[out, in / groups, k, k] of a convolution, [out, in] of a linear layer."""
        if self.kind == "linear":
            return self.out_channels, self.in_channels
        return self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel


def find_layer(layers: Sequence[Layer], name: str) -> Layer | None:
    """The layer that is called ``name`` or has that path; None if there is none."""
    return next((layer for layer in layers if name and name in (layer.name, layer.path)), None)


def last_uses(layers: Sequence[Layer]) -> dict[str, tuple[str, ...]]:
    """By layer, the inputs that no later layer takes: their responses can be forgotten after it."""
    user = {name: layer.name for layer in layers for name in layer.inputs}
    return {
        layer.name: tuple(name for name in layer.inputs if user[name] == layer.name)
        for layer in layers
    }
