"""Trace a torch module: ``trace_module`` gives its layers and tensors, held to the module's own logits."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from rootmodels.layer import IMAGES, Layer, check_graph
from rootmodels.parameters import LayerParameters, fold_layer
from rootmodels.trace import elementwise, operations, shapes
from rootmodels.trace.building import Graph, Value
from rootmodels.trace.errors import HINTS, OTHER_HINT, TraceError, one_line, operation, refusal
from rootmodels.trace.export import export
from rootmodels.trace.simplify import simplify


@dataclass(frozen=True, slots=True)
class Traced:
    """What a module is made of: layers in the order they run, and the tensors of their training form."""

    layers: tuple[Layer, ...]
    tensors: Mapping[str, NDArray[np.generic]]
    image_size: int
    """Height and width of its images, in pixels."""
    classes: int
    """Number of logits."""

    @property
    def parameters(self) -> dict[str, LayerParameters]:
        """Of each layer that has some, folded."""
        return {
            layer.name: fold_layer(layer, self.tensors)
            for layer in self.layers
            if layer.has_parameters
        }


def trace_module(module: nn.Module, image_size: int) -> Traced:
    """The layers and tensors of ``module`` in inference, for square images of ``image_size`` pixels.

    The first layer takes what the module takes: images [N, 3, S, S], normalised if it wants them so.

    Raises:
        TraceError: naming what no layer does, where it stands in the code of the module, and what could be
            done.
    """
    was_training = module.training
    module.eval()
    try:
        return _trace(module, image_size)
    finally:
        module.train(was_training)


def _trace(module: nn.Module, image_size: int) -> Traced:
    exported = export(module, image_size)
    graph = Graph(image_size)
    known: dict[fx.Node, Any] = dict(exported.constants)
    for node in exported.nodes:
        if node in known or node.op == "output":
            continue
        if node.op == "placeholder":
            known[node] = Value(IMAGES, graph.shapes[IMAGES])
        elif node.users or _changes(node):
            known[node] = _result(graph, node, known)
    logits = known[exported.output]
    if not isinstance(logits, Value):
        raise TraceError("the module's logits do not depend on the image")
    last = graph.plain(exported.output, logits)
    layers, tensors = simplify(graph.layers, graph.tensors, last)
    try:
        check_graph(layers, image_size, logits.channels)
    except ValueError as error:
        raise TraceError(f"the layers found do not make a network: {one_line(error)}") from error
    return Traced(tuple(layers), tensors, image_size, logits.channels)


def _result(graph: Graph, node: fx.Node, known: Mapping[fx.Node, Any]) -> Any:
    """What ``node`` gives: a value of the image, several of them, or a constant."""
    args = cast("tuple[Any, ...]", fx.node.map_arg(node.args, known.get))
    kwargs = cast("dict[str, Any]", fx.node.map_arg(node.kwargs, known.get))
    if node.target is operator.getitem:
        values, index = args
        return values[index] if isinstance(values, list | tuple) else values
    if not _has_value([*args, *kwargs.values()]):
        if _changes(node):
            raise refusal(node, "it changes a tensor of the module")
        with torch.no_grad():
            return cast("Any", node.target)(*args, **kwargs)
    name = operation(node)
    handler = _HANDLERS.get(name)
    if handler is None:
        raise refusal(node, "no layer does this", HINTS.get(name, OTHER_HINT))
    return handler(graph, node, _named(node, args, kwargs))


def _named(node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name, as the operation's schema has them, defaults among them."""
    schema = cast("Any", node.target)._schema  # noqa: SLF001 - torch gives no other way to it
    named = {}
    for number, part in enumerate(schema.arguments):
        default = part.default_value if part.has_default_value() else None
        named[part.name] = args[number] if number < len(args) else kwargs.get(part.name, default)
    return named


def _has_value(arguments: list[Any] | tuple[Any, ...]) -> bool:
    return any(
        isinstance(each, Value) or (isinstance(each, list | tuple) and _has_value(each))
        for each in arguments
    )


def _changes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


_HANDLERS: dict[str, Any] = {
    "conv2d": operations.convolution,
    "convolution": operations.convolution,
    "linear": operations.linear,
    "batch_norm": operations.batch_norm,
    "_native_batch_norm_legit_no_training": operations.batch_norm,
    **dict.fromkeys(operations.ACTIVATIONS, operations.activation),
    "leaky_relu": operations.leaky_relu,
    "prelu": operations.leaky_relu,
    "gelu": operations.gelu,
    "hardtanh": operations.clamp,
    "clamp": operations.clamp,
    "clamp_min": operations.clamp,
    "max_pool2d": operations.max_pool,
    "max_pool2d_with_indices": operations.max_pool,
    "avg_pool2d": operations.avg_pool,
    "adaptive_avg_pool2d": operations.adaptive_avg_pool,
    "_adaptive_avg_pool2d": operations.adaptive_avg_pool,
    "adaptive_max_pool2d": operations.adaptive_max_pool,
    "mean": operations.mean,
    "amax": operations.mean,
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "rsub": elementwise.subtract,
    "mul": elementwise.multiply,
    "multiply": elementwise.multiply,
    "div": elementwise.divide,
    "neg": elementwise.negate,
    "cat": shapes.concatenate,
    "concat": shapes.concatenate,
    "chunk": shapes.split,
    "split": shapes.split,
    "split_with_sizes": shapes.split,
    "slice": shapes.cut,
    "narrow": shapes.cut,
    "select": shapes.select,
    "channel_shuffle": shapes.shuffle,
    "native_channel_shuffle": shapes.shuffle,
    "transpose": shapes.transpose,
    "permute": shapes.transpose,
    "expand": shapes.expand,
    "expand_as": shapes.expand,
    "pad": shapes.pad,
    "constant_pad_nd": shapes.pad,
    **dict.fromkeys(
        ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view"),
        shapes.reshape,
    ),
    **dict.fromkeys(
        (
            "dropout",
            "feature_dropout",
            "alpha_dropout",
            "clone",
            "contiguous",
            "detach",
            "alias",
            "to",
        ),
        shapes.nothing,
    ),
}
"""By what torch calls an operation, in place or not: the layers that it becomes."""
