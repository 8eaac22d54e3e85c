"""What a variant costs: parameters and multiply-accumulates, per layer and in total. No torch.

Counted as the paper does: parameters are weights and biases of the convolutions; batch
normalisation folds away for inference and is not counted. The paper's FLOPS are multiply-accumulates
plus one addition per bias, not doubled; ``flops_paper`` reproduces every digit of its Table 8.
"""

from __future__ import annotations

from dataclasses import dataclass

from rootmodels.layers import Layer, network_layers
from rootmodels.variants import Variant


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Cost of one layer for one image."""

    layer: Layer
    params: int
    macs: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a network for one image: ``params`` and ``macs`` are sums over ``layers``."""

    layers: tuple[LayerCost, ...]
    params: int
    macs: int
    biases: int

    @property
    def flops_paper(self) -> int:
        """Multiply-accumulates plus one per bias: the count of the paper's Table 8."""
        return self.macs + self.biases


def layer_cost(layer: Layer) -> LayerCost:
    """Parameters and multiply-accumulates of ``layer`` for one image.

    A convolution with g groups has out * (in / g) * k^2 weights and out biases; each weight is used
    once per output pixel. Pooling costs neither.
    """
    if layer.kind != "conv":
        return LayerCost(layer, params=0, macs=0)
    weights = layer.out_channels * (layer.in_channels // layer.groups) * layer.kernel**2
    return LayerCost(layer, params=weights + layer.out_channels, macs=weights * layer.size**2)


def network_cost(variant: Variant, image_size: int = 32) -> Cost:
    """Cost of ``variant`` for one square image of ``image_size`` pixels."""
    layers = tuple(layer_cost(layer) for layer in network_layers(variant, image_size))
    return Cost(
        layers=layers,
        params=sum(cost.params for cost in layers),
        macs=sum(cost.macs for cost in layers),
        biases=sum(cost.layer.out_channels for cost in layers if cost.layer.kind == "conv"),
    )
