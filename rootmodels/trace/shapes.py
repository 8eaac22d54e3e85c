"""Operations that put values elsewhere and compute nothing, as layers, or as nothing at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import fx

from rootmodels.trace.building import BATCH, Graph, Value
from rootmodels.trace.errors import HINTS, operation, refusal
from rootmodels.trace.operations import Arguments

Dims = tuple[int, ...]


def nothing(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """What has no effect in inference, or where all values are: the value as it is."""
    first: Value = given.get("self", given.get("input"))
    if given.get("train") or given.get("training"):
        raise refusal(node, "it drops values at random", "use eval() as for inference")
    return first


def reshape(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """Whatever reads the values in the same order; only the first dimension stays."""
    value: Value = given["self"]
    shape = tuple(node.meta["val"].shape)
    if value.shape and value.shape[0] == BATCH and shape[:1] != (BATCH,):
        raise refusal(
            node, f"it makes {[*shape]} of {[*value.shape]}, expected that images stay apart"
        )
    return _shaped(graph, node, value, shape)


def expand(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``expand`` of what is of one pixel: sums and products do so by themselves."""
    value: Value = given["self"]
    shape = tuple(node.meta["val"].shape)
    if shape != value.shape and not (len(value.shape) == 4 and value.shape[2:] == (1, 1)):
        raise refusal(node, f"it makes {[*shape]} of {[*value.shape]}")
    return value


def transpose(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``transpose`` and ``permute`` of [N, groups, C / groups, H, W]: a shuffle of channels."""
    value: Value = given["self"]
    rank = len(value.shape)
    order = list(range(rank))
    if "dims" in given:
        order = [dim % rank for dim in given["dims"]]
    else:
        first, second = given["dim0"] % rank, given["dim1"] % rank
        order[first], order[second] = second, first
    shape = tuple(value.shape[dim] for dim in order)
    if [dim for dim in order if value.shape[dim] != 1] == [
        dim for dim in range(rank) if value.shape[dim] != 1
    ]:
        return _shaped(graph, node, value, shape)
    for user in node.users:
        if operation(user) in HINTS:
            # It is put in this order for that.
            raise refusal(user, "no layer does this", HINTS[operation(user)])
    maps = graph.shapes[value.source]
    if order != [0, 2, 1, *range(3, rank)] or rank != len(maps) + 1 or value.shape[3:] != maps[2:]:
        raise refusal(
            node,
            f"it makes {[*shape]} of {[*value.shape]}, expected a shuffle of channels",
            "keep maps in the order [N, C, H, W]",
        )
    made = graph.add(node, "shuffle", [Value(value.source, maps)], maps, groups=value.shape[1])
    return Value(made.source, shape)


def shuffle(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``channel_shuffle``."""
    value: Value = given["self"]
    return graph.add(node, "shuffle", [value], value.shape, groups=given["groups"])


def concatenate(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``cat`` along the channels."""
    values: Sequence[object] = given["tensors"]
    shape = tuple(node.meta["val"].shape)
    if not all(isinstance(value, Value) for value in values) or given["dim"] % len(shape) != 1:
        raise refusal(
            node, "expected maps or vectors alone, put one behind the other along the channels"
        )
    found = [value for value in values if isinstance(value, Value)]
    if sum(value.channels for value in found) != shape[1] or any(
        value.shape[2:] != shape[2:] for value in found
    ):
        raise refusal(
            node, "it takes maps that are spread to their size, expected maps of that size"
        )
    return found[0] if len(found) == 1 else graph.add(node, "concat", found, shape)


def pad(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``pad`` around maps: what comes next takes it."""
    value: Value = given["self"]
    numbers, fill = list(given["pad"]), float(given["value"] or 0.0)
    mode = given.get("mode", "constant")
    if mode != "constant" or any(numbers[4:]) or min(numbers, default=0) < 0:
        raise refusal(
            node,
            f"it pads by {numbers} ({mode}), expected a constant around height and width",
        )
    left, right, top, bottom = (*numbers, 0, 0, 0, 0)[:4]
    pads = (top, left, bottom, right)
    if any(value.pads) and value.fill != fill:
        raise refusal(node, f"it pads by {fill:g} what is padded by {value.fill:g}")
    plain = graph.shapes[value.source] if any(value.pads) else None
    source = value.source if plain else graph.plain(node, value)
    above = tuple(sum(both) for both in zip(value.pads, pads, strict=True))
    shape = tuple(node.meta["val"].shape)
    return Value(source, shape, (above[0], above[1], above[2], above[3]), fill)


def split(graph: Graph, node: fx.Node, given: Arguments) -> list[Value]:
    """``chunk`` and ``split``: a slice for each part."""
    value: Value = given["self"]
    rank = len(value.shape)
    shapes = [tuple(part.shape) for part in node.meta["val"]]
    if given["dim"] % rank != 1:
        raise refusal(node, f"it goes along dimension {given['dim']}, expected the channels")
    values, start = [], 0
    for shape in shapes:
        values.append(_slice(graph, node, value, start, shape))
        start += shape[1]
    return values


def cut(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``slice`` and ``narrow``: some channels, or each n-th row or column."""
    value: Value = given["self"]
    shape = tuple(node.meta["val"].shape)
    if shape == value.shape:
        return value
    dim, step = given["dim"] % len(value.shape), given.get("step", 1)
    start = (given["start"] or 0) % max(value.shape[dim], 1)
    if dim == 1 and step == 1:
        return _slice(graph, node, value, start, shape)
    whole = len(value.shape) == 4 and shape[dim] == -(-value.shape[dim] // max(step, 1))
    if dim in (2, 3) and start == 0 and step > 1 and whole:
        # The largest of one pixel, at each step.
        strides = (step, 1) if dim == 2 else (1, step)
        return graph.add(node, "max_pool", [value], shape, stride=strides)
    raise refusal(
        node, f"it takes a part of dimension {dim} of {[*value.shape]}, expected some channels"
    )


def select(graph: Graph, node: fx.Node, given: Arguments) -> Value:
    """``select`` of one channel."""
    value: Value = given["self"]
    dim = given["dim"] % len(value.shape)
    if dim != 1:
        raise refusal(node, f"it takes one of dimension {dim}, expected a channel")
    start = given["index"] % value.shape[1]
    one = _slice(graph, node, value, start, (value.shape[0], 1, *value.shape[2:]))
    return Value(one.source, tuple(node.meta["val"].shape))


def _slice(graph: Graph, node: fx.Node, value: Value, start: int, shape: Dims) -> Value:
    if shape == value.shape:
        return value
    return graph.add(node, "slice", [value], shape, start=start)


def _shaped(graph: Graph, node: fx.Node, value: Value, shape: Dims) -> Value:
    if shape == value.shape:
        return value
    if any(value.pads):
        raise refusal(node, "it takes a padded map, expected a convolution or a pooling")
    assert math.prod(shape) == math.prod(value.shape)
    return replace(value, shape=shape)
