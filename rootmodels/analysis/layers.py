"""Which layers of a variant can be analysed, and where in a layer; importable without torch."""

from __future__ import annotations

from enum import Enum

from rootmodels.analysis.sums import LayerShape
from rootmodels.layers import network_layers
from rootmodels.variants import Variant


class Stage(Enum):
    """Where in a layer its responses are taken."""

    AFTER_RELU = "after_relu"
    BEFORE_RELU = "before_relu"


def analysable_layers(variant: Variant, image_size: int = 32) -> tuple[LayerShape, ...]:
    """The convolutions of ``variant`` in the order they run; neighbours are adjacent layers."""
    return tuple(
        LayerShape(layer.name, layer.out_channels, layer.size, layer.size, layer.groups)
        for layer in network_layers(variant, image_size)
        if layer.kind == "conv"
    )
