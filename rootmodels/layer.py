"""One layer of a network as plain data, how to find one by its name, and whether layers fit together."""

from __future__ import annotations

import math
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
    """The paper's name, where it has one."""
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
    """Where it is in the torch module and in weights files; those of ResNet-50 are torchvision's."""
    norm: str = ""
    """Where a convolution's batch normalisation is; "" if it has none."""

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


def check_graph(layers: Sequence[Layer], image_size: int, classes: int) -> None:
    """Refuse layers that do not fit together: no engine could build them, and their cost would be wrong.

    Raises:
        ValueError: naming the first such layer, what it has and what was expected.
    """
    made = {IMAGES: (3, image_size)}
    flat: set[str] = set()
    for layer in layers:
        wanted = 2 if layer.kind == "add" else 1
        if layer.name in made or len(layer.inputs) != wanted or not made.keys() >= {*layer.inputs}:
            raise ValueError(
                f"layer {layer.name!r} takes {layer.inputs}, expected a name of its own and {wanted} of "
                f"{', '.join(made)}"
            )
        if layer.has_weights and not layer.path:
            raise ValueError(f"layer {layer.name!r} has no path, expected one for its weights")
        if flat.isdisjoint(layer.inputs) is (layer.kind == "linear"):
            raise ValueError(
                f"layer {layer.name!r} is {layer.kind}, expected a linear layer after a global average "
                "or another linear layer, and there alone"
            )
        channels, size = made[layer.inputs[-1]]
        filters = layer.out_channels if layer.has_weights else channels
        for what, found, expected in (
            ("inputs", made[layer.inputs[0]], (channels, size)),
            ("in_channels", layer.in_channels, channels),
            ("out_channels", layer.out_channels, filters),
            ("groups", layer.groups, math.gcd(layer.groups, channels, filters)),
            ("size", layer.size, _output_size(layer, size)),
        ):
            if found != expected:
                raise ValueError(f"layer {layer.name!r} has {what} {found}, expected {expected}")
        if layer.size < 1:
            raise ValueError(f"layer {layer.name!r} has nothing left of the image")
        made[layer.name] = layer.out_channels, layer.size
        if layer.kind in ("global_avg_pool", "linear"):
            flat.add(layer.name)
    last = layers[-1].name if layers else IMAGES
    if last not in flat or made[last] != (classes, 1):
        raise ValueError(
            f"the last layer is {last!r}, expected a global average or a linear layer of {classes}"
        )


def _output_size(layer: Layer, size: int) -> int:
    """Height and width of what ``layer`` makes of maps of ``size``, as torch has it."""
    if layer.kind in ("linear", "global_avg_pool"):
        return 1
    if layer.kind == "add":
        return size
    room = size + 2 * layer.padding - layer.kernel
    if not layer.ceil:
        return room // layer.stride + 1
    steps = -(-room // layer.stride)
    # No window begins beyond the image.
    return steps + (steps * layer.stride < size + layer.padding)
