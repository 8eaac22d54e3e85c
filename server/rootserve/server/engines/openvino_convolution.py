"""A convolution as a node of OpenVINO's graph, in the shape that a CPU computes fastest."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset14 as ops
from typing_extensions import override

from rootmodels.layer import Layer

Array = NDArray[np.float32]

_FEWEST_OUTPUTS = 12
"""Outputs of a group below which groups are merged: kernels compute 16 at a time (docs/engines.md)."""


class Arithmetic(Protocol):
    """What a precision puts around the weights and the responses."""

    slow_inputs: range
    """Input channels of a group for which there is no good kernel: such groups are merged too."""

    def weight(self, weight: Array, groups: int) -> ov.Node:
        """``weight`` [out, in / groups, kh, kw] as the operand of a convolution."""
        ...

    def responses(self, name: str, x: ov.Output) -> ov.Output:
        """The responses ``x`` of the layer called ``name``, or the normalised ``images``."""
        ...


def operand(weight: Array, groups: int) -> Array:
    """[out, in / g, k, k], or [g, out / g, in / g, k, k] as OpenVINO wants it if there are groups."""
    return weight if groups == 1 else weight.reshape(groups, -1, *weight.shape[1:])


class FloatArithmetic(Arithmetic):
    """Nothing: the device computes in what it is told to."""

    slow_inputs = range(0)

    @override
    def weight(self, weight: Array, groups: int) -> ov.Node:
        return ops.constant(operand(weight, groups))

    @override
    def responses(self, name: str, x: ov.Output) -> ov.Output:
        return x


def convolution(layer: Layer, x: ov.Output, weight: Array, arithmetic: Arithmetic) -> ov.Node:
    """``layer`` without its bias and its activation."""
    weight, groups = merge_groups(weight, layer.groups, arithmetic.slow_inputs)
    top, left, bottom, right = layer.pads
    convolve = ops.convolution if groups == 1 else ops.group_convolution
    return convolve(
        x,
        arithmetic.weight(weight, groups),
        layer.strides,
        [top, left],
        [bottom, right],
        layer.dilations,
    )


def merge_groups(weight: Array, groups: int, slow_inputs: range = range(0)) -> tuple[Array, int]:
    """Neighbouring groups as one with zeros in between, while they are small or slow; and how many are left.

    Depthwise convolutions, one channel to a group, have kernels of their own and stay as they are.
    """
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    if inputs == outputs == 1:
        return weight, groups
    while groups % 2 == 0 and (outputs < _FEWEST_OUTPUTS or inputs in slow_inputs):
        merged = np.zeros((weight.shape[0], 2 * inputs, *weight.shape[2:]), np.float32)
        by_group = weight.reshape(groups, outputs, *weight.shape[1:])
        target = merged.reshape(groups, outputs, *merged.shape[1:])
        target[0::2, :, :inputs] = by_group[0::2]
        target[1::2, :, inputs:] = by_group[1::2]
        weight, groups, inputs, outputs = merged, groups // 2, 2 * inputs, 2 * outputs
    return weight, groups
