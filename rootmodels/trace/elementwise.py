"""Operations on values one by one, as layers: sums and products of maps, and with constants."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from rootmodels.layer import Kind
from rootmodels.trace.building import Graph, Value
from rootmodels.trace.errors import refusal
from rootmodels.trace.operations import Arguments


def add(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``add`` of two maps, or of a map and a constant."""
    return _sum(graph, node, given["self"], _times(graph, node, given["other"], given["alpha"]))


def subtract(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``sub``, and ``rsub``, which has them the other way."""
    first, second = given["self"], given["other"]
    if "rsub" in str(node.target):
        first, second = second, first
    return _sum(graph, node, first, _times(graph, node, second, -given["alpha"]))


def multiply(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``mul`` of two maps, or of a map and a constant."""
    first, second = given["self"], given["other"]
    if isinstance(first, Value) and isinstance(second, Value):
        return _joined(graph, node, "multiply", first, second)
    value, factor = (first, second) if isinstance(first, Value) else (second, first)
    return _times(graph, node, value, factor)


def divide(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``div`` by a constant."""
    if isinstance(given["other"], Value) or given.get("rounding_mode") is not None:
        raise refusal(node, "it divides by what comes of the image, or rounds")
    return _times(graph, node, given["self"], 1 / torch.as_tensor(given["other"]))


def negate(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``neg``."""
    return _times(graph, node, given["self"], -1)


def _sum(graph: Graph, node: fx.Node, first: object, second: object) -> Value:
    if isinstance(first, Value) and isinstance(second, Value):
        return _joined(graph, node, "add", first, second)
    value, constant = (first, second) if isinstance(first, Value) else (second, first)
    assert isinstance(value, Value)
    if not isinstance(constant, Tensor) and constant == 0:
        return value
    value, bias = _per_channel(graph, node, value, constant)
    return graph.add_affine(node, value, torch.ones_like(bias), bias)


def _times(graph: Graph, node: fx.Node, value: object, factor: object) -> Value:
    """``value`` times a constant; a constant comes back as one."""
    if not isinstance(factor, Tensor) and factor == 1:
        return value  # type: ignore[return-value]
    if not isinstance(value, Value):
        return torch.as_tensor(value) * factor  # type: ignore[return-value, operator]
    value, weight = _per_channel(graph, node, value, factor)
    return graph.add_affine(node, value, weight, torch.zeros_like(weight))


def _per_channel(
    graph: Graph, node: fx.Node, value: Value, constant: object
) -> tuple[Value, Tensor]:
    """``constant`` as one number for each channel of ``value``, which may get another shape for that."""
    numbers = torch.as_tensor(constant).detach().float()
    if numbers.numel() == 1:
        return value, numbers.reshape(1).expand(graph.shapes[value.source][1]).clone()
    plain = graph.plain(node, value)
    shape = graph.shapes[plain]
    spread = numbers.reshape((1,) * (len(shape) - numbers.dim()) + tuple(numbers.shape))
    if tuple(spread.shape) != (1, shape[1], *(1,) * (len(shape) - 2)):
        raise refusal(
            node,
            f"it takes a constant of shape {[*numbers.shape]} with values of {[*shape]}, "
            "expected one number, or one for each channel",
        )
    return Value(plain, shape), spread.flatten()


def _joined(graph: Graph, node: fx.Node, kind: Kind, first: Value, second: Value) -> Value:
    """The sum or product of two; one of them may be of one pixel."""
    if first.shape != second.shape:
        small, large = sorted((first, second), key=lambda value: value.shape[2:])
        ones = (*large.shape[:2], *(1,) * (len(large.shape) - 2))
        if len(large.shape) != 4 or small.shape != ones:
            raise refusal(
                node,
                f"it takes values of shape {[*first.shape]} and {[*second.shape]}, expected the same, or "
                "one pixel for each channel",
            )
        first, second = large, small
    return graph.add(node, kind, [first, second], first.shape)
