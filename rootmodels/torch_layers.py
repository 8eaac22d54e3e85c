"""What each kind of layer is in torch: modules with its parameters, or functions where it has none."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rootmodels.layer import Activation, Layer

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "silu": functional.silu,
    "hardswish": functional.hardswish,
    "hardsigmoid": functional.hardsigmoid,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "sigmoid": torch.sigmoid,
}
_IN_PLACE: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu_,
    "relu6": lambda x: functional.relu6(x, inplace=True),
    "silu": lambda x: functional.silu(x, inplace=True),
    "hardswish": lambda x: functional.hardswish(x, inplace=True),
    "hardsigmoid": lambda x: functional.hardsigmoid(x, inplace=True),
    "sigmoid": torch.sigmoid_,
}
_VIEWS = ("identity", "slice", "shuffle", "flatten", "unflatten")
"""What these give may lie in the memory of what they take."""


class PaddedConvolution(nn.Conv2d):
    """A convolution whose ``pads`` (above, left, below, right) are not the same at both ends."""

    def __init__(self, layer: Layer, *, bias: bool) -> None:
        super().__init__(
            layer.in_channels, layer.out_channels, layer.kernels, layer.strides,
            dilation=layer.dilations, groups=layer.groups, bias=bias,
        )  # fmt: skip
        self.pads = layer.pads

    @override
    def forward(self, input: Tensor) -> Tensor:
        top, left, bottom, right = self.pads
        return super().forward(functional.pad(input, (left, right, top, bottom)))


class AnyNorm(nn.BatchNorm2d):
    """A batch normalisation of maps or vectors."""

    @override
    def _check_input_dim(self, input: Tensor) -> None:
        """Whatever has channels."""


class Scale(nn.Module):
    """Maps or vectors, channel by channel, times ``weight`` and plus ``bias``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] to the same."""
        shape = (-1, *(1,) * (x.dim() - 2))
        return x * self.weight.view(shape) + self.bias.view(shape)

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> Scale:
        """What ``norm`` does in inference."""
        mean, var = norm.running_mean, norm.running_var
        assert mean is not None
        assert var is not None
        scale = cls(norm.num_features).to(mean.device)
        with torch.no_grad():
            factor = norm.weight / torch.sqrt(var + norm.eps)
            scale.weight.copy_(factor)
            scale.bias.copy_(norm.bias - mean * factor)
        return scale


def make_part(layer: Layer, *, bias: bool) -> nn.Module:
    """The module with the weights that ``layer`` has at its path."""
    if layer.kind == "affine":
        return Scale(layer.out_channels)
    if layer.kind == "linear":
        return nn.Linear(layer.in_channels, layer.out_channels, bias=bias)
    top, left, bottom, right = layer.pads
    if (top, left) != (bottom, right):
        return PaddedConvolution(layer, bias=bias)
    return nn.Conv2d(
        layer.in_channels, layer.out_channels, layer.kernels, layer.strides, (top, left),
        layer.dilations, layer.groups, bias,
    )  # fmt: skip


def activate(layer: Layer, x: Tensor, *, in_place: bool = False) -> Tensor:
    """``x`` after the activation of ``layer``; itself, if there is none.

    With ``in_place`` it may be written where ``x`` is, unless that may be where an input of the layer is.
    """
    if layer.activation == "none":
        return x
    in_place = in_place and layer.kind not in _VIEWS
    if layer.activation == "leaky_relu":
        return functional.leaky_relu(x, layer.slope, inplace=in_place)
    functions = _IN_PLACE if in_place and layer.activation in _IN_PLACE else _ACTIVATIONS
    return functions[layer.activation](x)


def without_parameters(layer: Layer, x: Tensor) -> Tensor:  # noqa: PLR0911 - one for each kind
    """What a ``layer`` of one input and without parameters makes of ``x``, before its activation."""
    match layer.kind:
        case "max_pool":
            top, left, bottom, right = layer.pads
            if (top, left) != (bottom, right):
                x = functional.pad(x, (left, right, top, bottom), value=-math.inf)
                top, left = 0, 0
            return functional.max_pool2d(
                x, layer.kernels, layer.strides, (top, left), layer.dilations, layer.ceil
            )
        case "avg_pool":
            return functional.avg_pool2d(
                x, layer.kernels, layer.strides, layer.pads[:2], layer.ceil, layer.count_padding
            )
        case "adaptive_avg_pool":
            return functional.adaptive_avg_pool2d(x, layer.sizes)
        case "global_avg_pool":
            return functional.adaptive_avg_pool2d(x, 1).flatten(1)
        case "slice":
            return x[:, layer.start : layer.start + layer.out_channels]
        case "shuffle":
            by_group = x.reshape(len(x), layer.groups, -1, *x.shape[2:])
            return by_group.transpose(1, 2).flatten(1, 2)
        case "flatten":
            # Channel by channel, however they lie in memory.
            return x.flatten(1)
        case "unflatten":
            return x.reshape(len(x), layer.out_channels, *layer.sizes)
    return x
