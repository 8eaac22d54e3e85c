"""Operations that have parameters or look at windows, as layers: convolutions, normalisations, pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from rootmodels.layer import SLOPE, Activation, Kind
from rootmodels.model_graph import layer_path
from rootmodels.trace.building import Graph, Pads, Value
from rootmodels.trace.errors import operation, refusal

Arguments = Mapping[str, Any]
"""By torch's names; tensors that come from the image are :class:`Value`, all others are tensors."""

Handler = Callable[[Graph, fx.Node, Arguments], Value]

ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "relu6": "relu6",
    "silu": "silu",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
    "sigmoid": "sigmoid",
}


def convolution(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``conv2d``, with numbers or words for its padding."""
    x, weight, bias = _value(node, given["input"]), given["weight"], given["bias"]
    if not isinstance(weight, Tensor) or isinstance(bias, Value):
        raise refusal(node, "its weights are computed from the image, expected constant ones")
    if weight.dim() != 4 or given.get("transposed"):
        raise refusal(node, "expected a convolution of maps [N, C, H, W] that is not transposed")
    strides, dilations = _pair(given["stride"]), _pair(given["dilation"])
    pads = _pads(given["padding"], (weight.shape[2], weight.shape[3]), dilations)
    x, pads = _with_pads(node, x, pads, 0.0)
    name = _parameter_name(graph, node, "weight")
    path = layer_path(name)
    graph.keep(f"{path}.weight", weight)
    if bias is not None:
        graph.keep(f"{path}.bias", bias)
    return graph.add(
        node, "conv", [x], _shape(node), name=name, path=path, bias=bias is not None,
        kernel=tuple(weight.shape[2:]), stride=strides, padding=pads, dilation=dilations,
        groups=given["groups"],
    )  # fmt: skip


def linear(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``linear`` of vectors."""
    x, weight, bias = _value(node, given["input"]), given["weight"], given["bias"]
    if not isinstance(weight, Tensor) or isinstance(bias, Value):
        raise refusal(node, "its weights are computed from the image, expected constant ones")
    if len(x.shape) != 2:
        raise refusal(
            node,
            f"it takes values of shape {[*x.shape]}, expected vectors",
            "flatten maps before a linear layer, or use a 1x1 convolution",
        )
    name = _parameter_name(graph, node, "weight")
    path = layer_path(name)
    graph.keep(f"{path}.weight", weight)
    if bias is not None:
        graph.keep(f"{path}.bias", bias)
    return graph.add(node, "linear", [x], _shape(node), name=name, path=path, bias=bias is not None)


def batch_norm(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``batch_norm`` in inference, as an affine layer; a convolution before it takes it later."""
    x = _value(node, given["input"])
    mean, var = given["running_mean"], given["running_var"]
    if given.get("training") or not isinstance(mean, Tensor) or not isinstance(var, Tensor):
        raise refusal(
            node,
            "it normalises by the statistics of the images at hand",
            "use track_running_stats=True, and eval() as for inference",
        )
    channels = len(mean)
    weight, bias = given["weight"], given["bias"]
    name = _parameter_name(graph, node, "running_mean")
    norm = f"{layer_path(name)}-norm"
    graph.keep(f"{norm}.weight", torch.ones(channels) if weight is None else weight)
    graph.keep(f"{norm}.bias", torch.zeros(channels) if bias is None else bias)
    graph.keep(f"{norm}.running_mean", mean)
    graph.keep(f"{norm}.running_var", var)
    graph.tensors[f"{norm}.num_batches_tracked"] = torch.zeros((), dtype=torch.int64).numpy()
    return graph.add(
        node, "affine", [x], x.shape, name=name, norm=norm, epsilon=float(given["eps"])
    )


def activation(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """A function of each value; the layer before it takes it later."""
    x = _value(node, given["self"])
    return _activated(graph, node, x, ACTIVATIONS[operation(node)])


def leaky_relu(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``leaky_relu`` and ``prelu``, of one slope for all channels."""
    slope = given["negative_slope"] if "negative_slope" in given else given["weight"]
    if isinstance(slope, Value) or (isinstance(slope, Tensor) and slope.numel() != 1):
        raise refusal(
            node, "it has a slope for each channel, expected one", "use nn.PReLU(num_parameters=1)"
        )
    if not 0 <= float(slope) <= 1:
        raise refusal(node, f"its slope is {float(slope):g}, expected 0 to 1")
    x = _value(node, given["self"])
    return _activated(graph, node, x, "leaky_relu", float(slope))


def gelu(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``gelu``, exact or approximated by tanh."""
    exact = given["approximate"] == "none"
    return _activated(graph, node, _value(node, given["self"]), "gelu" if exact else "gelu_tanh")


def clamp(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``hardtanh`` and ``clamp`` as ReLU6 and ReLU, where they are these."""
    low = given["min_val"] if "min_val" in given else given["min"]
    high = given["max_val"] if "max_val" in given else given.get("max")
    known: dict[tuple[object, object], Activation] = {(0, 6): "relu6", (0, None): "relu"}
    if (low, high) not in known:
        raise refusal(node, f"it holds values to {low} to {high}, expected 0 to 6")
    return _activated(graph, node, _value(node, given["self"]), known[low, high])


def max_pool(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``max_pool2d``."""
    x, pads = _with_pads(
        node, _value(node, given["self"]), _pads(given["padding"], (1, 1), (1, 1)), -math.inf
    )
    kernel = _pair(given["kernel_size"])
    return graph.add(
        node, "max_pool", [x], _shape(node), kernel=kernel, stride=_pair(given["stride"] or kernel),
        padding=pads, dilation=_pair(given["dilation"]), ceil=given["ceil_mode"],
    )  # fmt: skip


def avg_pool(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``avg_pool2d``."""
    if given["divisor_override"] is not None:
        raise refusal(node, "it has a divisor of its own, expected the pixels of its window")
    counts = given["count_include_pad"]
    x, pads = _value(node, given["self"]), _pads(given["padding"], (1, 1), (1, 1))
    if not any(pads) or (counts and not any(x.pads)):
        x, pads = _with_pads(node, x, pads, 0.0)
    kernel = _pair(given["kernel_size"])
    return graph.add(
        node, "avg_pool", [x], _shape(node), kernel=kernel, stride=_pair(given["stride"] or kernel),
        padding=pads, ceil=given["ceil_mode"],
        count_padding=any(pads) and (counts or any(_value(node, given["self"]).pads)),
    )  # fmt: skip


def adaptive_avg_pool(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``adaptive_avg_pool2d``; windows alike are an average pooling."""
    x, shape = _value(node, given["self"]), _shape(node)
    return _adaptive(graph, node, x, shape, "avg_pool")


def adaptive_max_pool(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``adaptive_max_pool2d`` whose windows are alike."""
    return _adaptive(graph, node, _value(node, given["self"]), _shape(node), "max_pool")


def mean(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``mean`` and ``amax`` over height and width."""
    x = _value(node, given["self"])
    dims = sorted(dim % len(x.shape) for dim in given["dim"] or range(len(x.shape)))
    if len(x.shape) != 4 or dims != [2, 3]:
        raise refusal(
            node,
            f"it goes over dimensions {dims} of {[*x.shape]}, expected height and width of maps",
        )
    kind: Kind = "max_pool" if operation(node) == "amax" else "avg_pool"
    pooled = _adaptive(graph, node, x, (*x.shape[:2], 1, 1), kind)
    return Value(pooled.source, _shape(node))


def _adaptive(graph: Graph, node: fx.Node, x: Value, shape: tuple[int, ...], kind: Kind) -> Value:
    """Pooling to maps of the height and width of ``shape``."""
    if len(x.shape) != 4:
        raise refusal(node, f"it takes values of shape {[*x.shape]}, expected [N, C, H, W]")
    taken, given = x.shape[2:], shape[2:]
    if taken == given:
        return x
    alike = all(many % few == 0 for many, few in zip(taken, given, strict=True))
    if kind == "avg_pool" and (given == (1, 1) or not alike):
        return graph.add(node, "adaptive_avg_pool", [x], shape)
    if not alike:
        raise refusal(
            node,
            f"it makes maps of {given[0]}x{given[1]} of {taken[0]}x{taken[1]}, expected a divisor",
            "choose another image size",
        )
    windows = tuple(many // few for many, few in zip(taken, given, strict=True))
    return graph.add(node, kind, [x], shape, kernel=windows, stride=windows)


def _activated(
    graph: Graph, node: fx.Node, x: Value, which: Activation, slope: float = SLOPE
) -> Value:
    """Of a value in any shape, since each number is looked at for itself."""
    whole = Value(x.source, graph.shapes[x.source], x.pads, x.fill)
    made = graph.add(node, "identity", [whole], whole.shape, activation=which, slope=slope)
    return Value(made.source, x.shape)


def _parameter_name(graph: Graph, node: fx.Node, argument: str) -> str:
    """A new name: that of the module whose parameter ``argument`` is, or the usual one."""
    names = [part.name for part in node.target._schema.arguments]  # type: ignore[union-attr]  # noqa: SLF001
    place = names.index(argument)
    taken = node.args[place] if place < len(node.args) else None
    target = taken.meta.get("parameter", "") if isinstance(taken, fx.Node) else ""
    path, found, last = str(target).rpartition(".")
    return graph.free(path) if found and last == argument else graph.name(node)


def _value(node: fx.Node, given: object) -> Value:
    if not isinstance(given, Value):
        raise refusal(node, "it takes no image, expected what layers give")
    return given


def _shape(node: fx.Node) -> tuple[int, ...]:
    """What ``node`` gives; the first, if there are several."""
    found = node.meta["val"]
    return tuple((found[0] if isinstance(found, tuple | list) else found).shape)


def _pair(numbers: object) -> tuple[int, int]:
    if isinstance(numbers, int):
        return numbers, numbers
    first, *others = list(numbers)  # type: ignore[call-overload]
    return first, others[0] if others else first


def _pads(padding: object, kernel: tuple[int, int], dilation: tuple[int, int]) -> Pads:
    """Above, left, below and right."""
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        # torch puts what is left over below and to the right.
        height, width = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
        return height // 2, width // 2, height - height // 2, width - width // 2
    height, width = _pair(padding)
    return height, width, height, width


def _with_pads(node: fx.Node, x: Value, pads: Pads, fill: float) -> tuple[Value, Pads]:
    """``x`` without the pads that are around it, and those together with ``pads``."""
    if any(x.pads) and x.fill != fill:
        raise refusal(node, f"it takes a map with padding of {x.fill:g}, expected {fill:g}")
    top, left, bottom, right = (sum(both) for both in zip(pads, x.pads, strict=True))
    height, width = x.shape[2:]
    inner = (*x.shape[:2], height - x.pads[0] - x.pads[2], width - x.pads[1] - x.pads[3])
    return Value(x.source, inner), (top, left, bottom, right)
