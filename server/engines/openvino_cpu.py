"""Engine ``openvino``: the network built from its layer table and compiled by OpenVINO for the CPU.

Built without torch, because a worker that does not import torch is there in a third of the time
(docs/adr/0007-openvino-from-the-layer-table.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset14 as ops

from rootmodels.families import FAMILIES
from rootmodels.layer import IMAGES, Layer
from rootmodels.parameters import FoldedNetwork, LayerParameters
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
        EngineError, WeightsError: as :func:`compile_network`.
    """
    return OpenVinoEngine(compile_network(spec, spec.network()), spec.precision)


def compile_network(
    spec: LoadSpec, network: FoldedNetwork, further_options: Mapping[str, object] | None = None
) -> ov.CompiledModel:
    """``network`` compiled as ``spec`` says.

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
    options: dict[str, object] = {
        # Without this, OpenVINO chooses by itself, and takes bf16 on processors that can.
        "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[spec.precision],
        "INFERENCE_NUM_THREADS": spec.threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        **(further_options or {}),
    }
    return core.compile_model(build_network(network), "CPU", options)


def build_network(network: FoldedNetwork) -> ov.Model:
    """The network: float32 images [rows, 3, H, W] in 0..255 to logits [rows, classes].

    The node that does a layer's work has the layer's name, and those of its bias and its ReLU that name with
    "/" after it: by these a profile tells its time.
    """
    facts, size = FAMILIES[network.variant.family], network.image_size
    images = ops.parameter([-1, 3, size, size], np.float32, "images")
    mean, std = (
        np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (facts.mean, facts.std)
    )
    outputs = {IMAGES: ops.divide(ops.subtract(images, mean), std)}
    for layer in network.layers:
        inputs = [outputs[name] for name in layer.inputs]
        node = _node(layer, inputs, network.parameters.get(layer.name))
        node.set_friendly_name(layer.name)
        if layer.name in network.parameters:
            bias = network.parameters[layer.name].bias
            shape = (1, -1, 1, 1) if layer.kind == "conv" else (1, -1)
            node = ops.add(node, ops.constant(bias.reshape(shape)))
            node.set_friendly_name(f"{layer.name}/bias")
        if layer.relu:
            node = ops.relu(node)
            node.set_friendly_name(f"{layer.name}/relu")
        outputs[layer.name] = node.output(0)
    return ov.Model([outputs[network.layers[-1].name]], [images], network.variant.name)


def _node(layer: Layer, inputs: Sequence[ov.Node], parameters: LayerParameters | None) -> ov.Node:
    """``layer`` without its bias and its ReLU."""
    x = inputs[0]
    kernel, strides, padding = ([n, n] for n in (layer.kernel, layer.stride, layer.padding))
    rounding = "ceil" if layer.ceil else "floor"
    no_dilation = [1, 1]
    match layer.kind:
        case "conv":
            assert parameters is not None
            weight, convolve = parameters.weight, ops.convolution
            if layer.groups > 1:
                # [out, in / g, k, k] -> [g, out / g, in / g, k, k]
                weight = weight.reshape(layer.groups, -1, *weight.shape[1:])
                convolve = ops.group_convolution
            return convolve(x, ops.constant(weight), strides, padding, padding, no_dilation)
        case "linear":
            assert parameters is not None
            # [N, in] x [out, in] transposed
            return ops.matmul(x, ops.constant(parameters.weight), False, True)
        case "add":
            return ops.add(x, inputs[1])
        case "max_pool":
            return ops.max_pool(x, strides, no_dilation, padding, padding, kernel, rounding)
        case "avg_pool":
            # exclude_pad: what lies outside the map is not counted.
            return ops.avg_pool(x, strides, padding, padding, kernel, True, rounding)
        case "global_avg_pool":
            return ops.reduce_mean(x, ops.constant(_SPATIAL_AXES), keep_dims=False)
