"""What each kind of layer and each activation is in OpenVINO's graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import openvino as ov
from openvino import opset14 as ops

from rootmodels.layer import Activation, Layer
from rootmodels.parameters import LayerParameters
from rootserve.server.engines.openvino_convolution import Arithmetic, Array, convolution

_SPATIAL_AXES = np.array([2, 3])

_ACTIVATIONS: Mapping[Activation, Callable[[ov.Output, Layer], ov.Node]] = {
    "relu": lambda x, _: ops.relu(x),
    "leaky_relu": lambda x, layer: ops.prelu(x, ops.constant(np.array([layer.slope], np.float32))),
    "relu6": lambda x, _: ops.clamp(x, 0.0, 6.0),
    "silu": lambda x, _: ops.swish(x),
    "hardswish": lambda x, _: ops.hswish(x),
    "hardsigmoid": lambda x, _: ops.hsigmoid(x),
    "gelu": lambda x, _: ops.gelu(x, "erf"),
    "gelu_tanh": lambda x, _: ops.gelu(x, "tanh"),
    "sigmoid": lambda x, _: ops.sigmoid(x),
}


def add_layer(
    layer: Layer,
    inputs: Sequence[ov.Output],
    parameters: LayerParameters | None,
    arithmetic: Arithmetic,
) -> ov.Output:
    """What ``layer`` makes of ``inputs``: maps [1, C, H, W] or vectors [1, C].

    The node that does its work has the layer's name, and those of its bias and its activation that name with
    "/" after it. A layer that does nothing has no node.
    """
    x = inputs[0]
    if layer.kind != "identity":
        node = _node(layer, inputs, parameters, arithmetic)
        node.set_friendly_name(layer.name)
        x = node.output(0)
    if parameters is not None:
        node = ops.add(x, ops.constant(_by_channel(parameters.bias, x)))
        node.set_friendly_name(f"{layer.name}/bias")
        x = node.output(0)
    if layer.activation != "none":
        node = _ACTIVATIONS[layer.activation](x, layer)
        node.set_friendly_name(f"{layer.name}/{layer.activation}")
        x = node.output(0)
    return x


def _node(  # noqa: PLR0911 - one for each kind
    layer: Layer,
    inputs: Sequence[ov.Output],
    parameters: LayerParameters | None,
    arithmetic: Arithmetic,
) -> ov.Node:
    """``layer`` without its bias and its activation."""
    x = inputs[0]
    match layer.kind:
        case "conv":
            assert parameters is not None
            return convolution(layer, x, parameters.weight, arithmetic)
        case "linear":
            assert parameters is not None
            # [N, in] x [out, in] transposed
            return ops.matmul(x, ops.constant(parameters.weight), False, True)
        case "affine":
            assert parameters is not None
            return ops.multiply(x, ops.constant(_by_channel(parameters.weight, x)))
        case "add":
            return ops.add(x, inputs[1])
        case "multiply":
            return ops.multiply(x, inputs[1])
        case "concat":
            return ops.concat(list(inputs), 1)
        case "max_pool" | "avg_pool":
            return _pooling(layer, x)
        case "adaptive_avg_pool":
            return ops.adaptive_avg_pool(x, ops.constant(np.array(layer.sizes)))
        case "global_avg_pool":
            return ops.reduce_mean(x, ops.constant(_SPATIAL_AXES), keep_dims=False)
    return _rearranged(layer, x)


def _pooling(layer: Layer, x: ov.Output) -> ov.Node:
    top, left, bottom, right = layer.pads
    before, after, kernel, strides = [top, left], [bottom, right], layer.kernels, layer.strides
    # As torch rounds: no window begins beyond the image.
    rounding = "ceil_torch" if layer.ceil else "floor"
    if layer.kind == "max_pool":
        return ops.max_pool(x, strides, layer.dilations, before, after, kernel, rounding)
    if layer.count_padding and layer.ceil:
        return _counting_pooling(layer, x)
    excluded = not layer.count_padding
    return ops.avg_pool(x, strides, before, after, kernel, excluded, rounding)


def _counting_pooling(layer: Layer, x: ov.Output) -> ov.Node:
    """An average that counts the padding, and not what lies beyond it: OpenVINO's own would count both."""
    top, left, bottom, right = (int(each) for each in layer.pads)
    before, after = np.array([0, 0, top, left]), np.array([0, 0, bottom, right])
    zero = ops.constant(np.float32(0))
    padded = ops.pad(x, ops.constant(before), ops.constant(after), "constant", zero)
    none = [0, 0]
    means = ops.avg_pool(padded, layer.strides, none, none, layer.kernels, True, "ceil")
    # Windows that begin in what is padded at the end are none of the layer's.
    bounds = ([0, 0], [*layer.sizes], [1, 1], [2, 3])
    return ops.slice(means, *(ops.constant(np.array(one)) for one in bounds))


def _rearranged(layer: Layer, x: ov.Output) -> ov.Node:
    """Those kinds that compute nothing."""
    match layer.kind:
        case "slice":
            bounds = ([layer.start], [layer.start + layer.out_channels], [1], [1])
            return ops.slice(x, *(ops.constant(np.array(one)) for one in bounds))
        case "shuffle":
            return ops.shuffle_channels(x, 1, layer.groups)
        case "flatten":
            shape = [1, layer.out_channels]
        case "unflatten":
            shape = [1, layer.out_channels, *layer.sizes]
        case other:
            raise AssertionError(f"a layer of kind {other} has no node")
    return ops.reshape(x, ops.constant(np.array(shape)), special_zero=False)


def _by_channel(values: Array, x: ov.Output) -> Array:
    """[C] as it goes with ``x``."""
    return values.reshape(1, -1, *[1] * (len(x.get_partial_shape()) - 2))
