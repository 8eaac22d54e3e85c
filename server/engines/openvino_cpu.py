"""Engine ``openvino``: the network built from its layer table and compiled by OpenVINO for the CPU.

Built without torch, because a worker that does not import torch is there in a third of the time
(docs/adr/0007-openvino-from-the-layer-table.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset14 as ops

from rootmodels.layers import CIFAR10_MEAN, CIFAR10_STD, Layer, network_layers
from rootmodels.parameters import ConvParameters
from rootmodels.variants import Variant, get_variant
from server.engines.base import EngineError, Images, LoadSpec, Precision

_PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}
_SPATIAL_AXES = np.array([2, 3])


class OpenVinoEngine:
    """One compiled model with its own inference request."""

    name = "openvino"

    def __init__(self, compiled: ov.CompiledModel, precision: Precision) -> None:
        self._request = compiled.create_infer_request()
        self.precision = precision

    def run(self, images: Images) -> NDArray[np.float32]:
        """See :class:`server.engines.base.Engine`."""
        results = self._request.infer([images.astype(np.float32)], share_inputs=True)
        logits: NDArray[np.float32] = results[0]
        return logits


def load(spec: LoadSpec) -> OpenVinoEngine:
    """Build and compile ``spec``; the batch dimension stays open.

    Raises:
        EngineError: if the device is not a CPU, or the CPU cannot compute in the precision asked for.
        WeightsError: if the weights cannot be used.
    """
    if spec.device != "cpu":
        raise EngineError(f"engine openvino runs on the cpu, not on {spec.device}; use torch")
    core = ov.Core()
    if spec.precision == "bf16" and "BF16" not in core.get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        raise EngineError("this processor does not compute in bf16; use precision fp32")
    model = build_network(get_variant(spec.model), spec.parameters())
    options = {
        # Without this, OpenVINO chooses by itself, and takes bf16 on processors that can.
        "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[spec.precision],
        "INFERENCE_NUM_THREADS": spec.threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    return OpenVinoEngine(core.compile_model(model, "CPU", options), spec.precision)


def build_network(variant: Variant, parameters: Mapping[str, ConvParameters]) -> ov.Model:
    """The network: float32 images [rows, 3, H, W] in 0..255 to logits [rows, classes]."""
    layers = network_layers(variant)
    size = layers[0].size
    images = ops.parameter([-1, 3, size, size], np.float32, "images")
    mean, std = (
        np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (CIFAR10_MEAN, CIFAR10_STD)
    )
    x = ops.divide(ops.subtract(images, mean), std)
    for layer in layers:
        x = _apply(layer, x, parameters)
    return ov.Model([x], [images], variant.name)


def _apply(layer: Layer, x: ov.Node, parameters: Mapping[str, ConvParameters]) -> ov.Node:
    kernel, strides, padding = ([n, n] for n in (layer.kernel, layer.stride, layer.padding))
    no_dilation = [1, 1]
    match layer.kind:
        case "conv":
            weight, bias = parameters[layer.name].weight, parameters[layer.name].bias
            convolve = ops.convolution
            if layer.groups > 1:
                # [out, in / g, k, k] -> [g, out / g, in / g, k, k]
                weight = weight.reshape(layer.groups, -1, *weight.shape[1:])
                convolve = ops.group_convolution
            x = convolve(x, ops.constant(weight), strides, padding, padding, no_dilation)
            return ops.relu(ops.add(x, ops.constant(bias.reshape(1, -1, 1, 1))))
        case "max_pool":
            pool = ops.max_pool(x, strides, no_dilation, padding, padding, kernel, "ceil")
            return pool.output(0)
        case "avg_pool":
            # exclude_pad: what lies outside the map is not counted.
            return ops.avg_pool(x, strides, padding, padding, kernel, True, "ceil")
        case "global_avg_pool":
            return ops.reduce_mean(x, ops.constant(_SPATIAL_AXES), keep_dims=False)
