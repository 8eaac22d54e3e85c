"""The int8 arithmetic of the OpenVINO engine: quantisation after training, by ranges that were measured.

Weights are int8, symmetric, with one scale per output channel; they use all 8 bits, or 7 where sums of their
products would overflow (:func:`rootmodels.processor.int8_weight_bits`). Responses are rounded to 256 levels:
unsigned after a ReLU, signed for the normalised images. OpenVINO's low precision transformations make integer
kernels of such a graph (docs/adr/0009-engines-and-precision.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import openvino as ov
from openvino import opset14 as ops
from typing_extensions import override

from rootmodels.calibration import Range
from rootmodels.layer import IMAGES, Layer
from rootserve.server.engines.openvino_convolution import Arithmetic, Array, operand

_LEVELS = 256
_LARGEST = 127
"""Of 8 bits with a sign, symmetric."""
_COMPUTED = ("conv", "affine", "add", "multiply", "concat", "adaptive_avg_pool")
"""Kinds that give other values than they take, or values of which each comes from another range."""
_SMALLEST_SCALE = 1e-12
"""Of a channel whose weights are all 0."""


class Int8Arithmetic(Arithmetic):
    """Quantises weights to ``weight_bits``, and those responses of ``layers`` that are computed on."""

    # 12 inputs and 24 outputs take OpenVINO a third longer than 24 and 48.
    slow_inputs = range(9, 16)

    def __init__(
        self, layers: Sequence[Layer], ranges: Mapping[str, Range], weight_bits: int
    ) -> None:
        self._ranges = ranges
        self._largest_weight = 2 ** (weight_bits - 1) - 1
        # Poolings and convolutions compute on; a largest of rounded values is a rounded value already, and so
        # is what only goes elsewhere. What becomes the logits at once stays as it is, and so does what has no
        # activation yet, unless a convolution takes it: a sum follows.
        ends = {
            name for layer in layers if layer.kind == "global_avg_pool" for name in layer.inputs
        }
        taken = {name for layer in layers if layer.kind == "conv" for name in layer.inputs}
        self._rounded = {IMAGES} | {
            layer.name
            for layer in layers
            if (
                layer.activation != "none"
                or layer.kind == "avg_pool"
                or (layer.kind in _COMPUTED and layer.name in taken)
            )
            and layer.name not in ends
        }

    @override
    def weight(self, weight: Array, groups: int) -> ov.Node:
        largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
        scale = np.maximum(largest / self._largest_weight, _SMALLEST_SCALE).astype(np.float32)
        rounded = np.rint(weight / scale).astype(np.int8)
        integers = ops.convert(ops.constant(operand(rounded, groups)), np.float32)
        return ops.multiply(integers, ops.constant(operand(scale, groups)))

    @override
    def responses(self, name: str, x: ov.Output) -> ov.Output:
        if name not in self._rounded:
            return x
        low, high = self._ranges[name]
        if low < 0.0:
            high = max(-low, high)
            low = -high * (_LARGEST + 1) / _LARGEST
        low_node, high_node = ops.constant(np.float32(low)), ops.constant(np.float32(high))
        return ops.fake_quantize(x, low_node, high_node, low_node, high_node, _LEVELS).output(0)
