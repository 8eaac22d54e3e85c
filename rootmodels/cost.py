"""What a variant costs: parameters and multiply-accumulates, per layer and in total. No torch.

Counted as the paper does: parameters are the weights and own biases of convolutions and linear layers; batch
normalisation folds away for inference and is not counted. The paper's FLOPS are multiply-accumulates
plus one addition per bias, not doubled; ``flops_paper`` reproduces every digit of its tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rootmodels.family import Variant
from rootmodels.layer import Layer
from rootmodels.layers import network_layers


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Cost of one layer for one image."""

    layer: Layer
    params: int
    macs: int

    @property
    def flops_paper(self) -> int:
        """Multiply-accumulates plus one per bias."""
        biased = self.layer.bias or self.layer.paper_bias
        return self.macs + (self.layer.out_channels if biased else 0)


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a network for one image: sums over ``layers``."""

    layers: tuple[LayerCost, ...]
    params: int
    macs: int
    flops_paper: int


def layer_cost(layer: Layer) -> LayerCost:
    """Parameters and multiply-accumulates of ``layer`` for one image.

    A convolution with g groups has out * (in / g) * k^2 weights, each of them used once per output pixel, and
    a linear layer out * in. Nothing else costs either.
    """
    if not layer.has_weights:
        return LayerCost(layer, params=0, macs=0)
    weights = math.prod(layer.weight_shape)
    biases = layer.out_channels if layer.bias else 0
    return LayerCost(layer, params=weights + biases, macs=weights * layer.pixels)


def network_cost(
    variant: Variant, image_size: int | None = None, classes: int | None = None
) -> Cost:
    """Cost of ``variant`` for one square image; see :func:`rootmodels.layers.network_layers`."""
    layers = tuple(layer_cost(layer) for layer in network_layers(variant, image_size, classes))
    return Cost(
        layers=layers,
        params=sum(cost.params for cost in layers),
        macs=sum(cost.macs for cost in layers),
        flops_paper=sum(cost.flops_paper for cost in layers),
    )
