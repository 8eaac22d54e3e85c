"""A network's layers as JSON, and back: whatever comes is checked before anything is built of it.

A layer is an object with the fields of :class:`rootmodels.layer.Layer`, without those that have their
default. It has no path: where its tensors are in a file follows from its name (:func:`layer_path`). ``norm``
is true where a batch normalisation follows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any, get_args

from rootmodels.cost import layer_cost
from rootmodels.layer import IMAGES, Activation, Kind, Layer, check_graph, last_uses

MOST_LAYERS = 1000
_LONGEST_NAME = 80
"""A profile tells of all layers in one datagram: so many, with such names, are what fits."""
_MOST_CHANNELS = 2**20
_LARGEST_EXTENT = 4096
_MOST_INPUTS = 256

MOST_PARAMETERS = 2**30
MOST_VALUES = 2**28
"""Of the responses to one image, those that are held at a time: 1 GiB."""
MOST_OPERATIONS = 2**39
"""Products, sums and comparisons for one image: some ten seconds of a processor."""

_LAYER_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")

_NOT_IN_FILES = ("relu", "path", "paper_bias")
"""Told by the activation, by the name, and of nobody but the paper's networks."""

_CHANNELS = ("in_channels", "out_channels", "groups")
_EXTENTS = {"kernel": 0, "stride": 1, "dilation": 1, "size": 1, "padding": 0}
"""One number or several, and the least of them."""
_FLAGS = ("ceil", "bias", "count_padding", "norm")


def layer_path(name: str) -> str:
    """Where the tensors of the layer called ``name`` are in a model file, and in the module made of it."""
    return f"graph.{name.replace('.', '-')}"


def norm_path(name: str) -> str:
    """Where those of the batch normalisation are that follows it."""
    return f"{layer_path(name)}-norm"


def graph_content(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """``layers`` as JSON has them."""
    return [_layer_content(layer) for layer in layers]


def read_graph(content: object, image_size: int, classes: int) -> tuple[Layer, ...]:
    """The layers that ``content`` tells of, for images of ``image_size`` and so many ``classes``.

    Raises:
        ValueError: naming the layer, what it has and what was expected.
    """
    if not isinstance(content, list) or not 1 <= len(content) <= MOST_LAYERS:
        came = f"{len(content)} of them" if isinstance(content, list) else _shown(content)
        raise ValueError(f"layers: {came}, expected a list of 1 to {MOST_LAYERS}")
    layers: list[Layer] = []
    names = [each.get("name") if isinstance(each, dict) else None for each in content]
    for number, one in enumerate(content):
        where = f"layer {number} ({_shown(names[number])})"
        try:
            layer = _read_layer(one)
            _check_inputs(layer, [IMAGES, *(each.name for each in layers)], names[number:])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        layers.append(layer)
    check_graph(layers, image_size, classes)
    _check_amounts(layers, image_size)
    return tuple(layers)


def _layer_content(layer: Layer) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for field in fields(Layer):
        value = getattr(layer, field.name)
        if field.name == "norm":
            value = bool(value)
        if field.name in _NOT_IN_FILES or value == field.default or value is False:
            continue
        content[field.name] = list(value) if isinstance(value, tuple) else value
    return content


def _read_layer(content: object) -> Layer:
    if not isinstance(content, dict):
        raise ValueError(f"it is {_shown(content)}, expected an object")
    known = {field.name: field for field in fields(Layer) if field.name not in _NOT_IN_FILES}
    for name in content:
        if name not in known:
            raise ValueError(f"it has a field {_shown(name)}, expected {', '.join(known)}")
    for name, field in known.items():
        if name not in content and field.default is MISSING:
            raise ValueError(f"it has no {name}")
    values = {name: _READERS[name](name, value) for name, value in content.items()}
    path = layer_path(values["name"])
    norm = norm_path(values["name"]) if values.pop("norm", False) else ""
    # A normalisation that stands alone has no other tensors.
    alone = norm and values["kind"] == "affine"
    return Layer(**values, path="" if alone else path, norm=norm)


def _check_inputs(layer: Layer, before: Sequence[str], after: Sequence[object]) -> None:
    for name in layer.inputs:
        if name not in before:
            what = "which does not come before it" if name in after else "and no layer is called so"
            raise ValueError(f"it takes {name!r}, {what}; expected {IMAGES!r} or a layer before it")
    if layer.name in before:
        raise ValueError("expected a name that no other layer has")
    if layer.norm and layer.kind not in ("conv", "affine"):
        raise ValueError(
            f"it is {layer.kind} with a norm, expected a convolution or an affine layer"
        )
    if layer.bias and not layer.has_parameters:
        raise ValueError(f"it is {layer.kind} with a bias, expected none")
    if layer.kind == "affine" and layer.bias is bool(layer.norm):
        raise ValueError("it is affine, expected a bias or a norm")


def _check_amounts(layers: Sequence[Layer], image_size: int) -> None:
    """Refuse what would take more memory or time than any network that somebody would serve."""
    costs = [layer_cost(layer) for layer in layers]
    values = {IMAGES: 3 * image_size**2}
    values |= {layer.name: layer.out_channels * layer.pixels for layer in layers}
    operations = sum(cost.macs for cost in costs) + sum(values.values())
    operations += sum(
        values[layer.name] * math.prod(layer.kernels)
        for layer in layers
        if layer.kind in ("max_pool", "avg_pool")
    )
    held = most = 0
    forgotten = last_uses(layers)
    for layer in layers:
        # What a layer computes, and what is padded or put in another order for it.
        held += values[layer.name]
        most = max(most, held + sum(values[name] for name in layer.inputs))
        held -= sum(values[name] for name in forgotten[layer.name] if name != IMAGES)
    for what, found, limit in (
        ("parameters", sum(cost.params for cost in costs), MOST_PARAMETERS),
        ("responses to an image at a time", most, MOST_VALUES),
        ("operations for an image", operations, MOST_OPERATIONS),
    ):
        if found > limit:
            raise ValueError(f"it has {found} {what}, expected at most {limit}")


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_shown(value)}, expected a string")
    return value


def _layer_name(name: str, value: object) -> str:
    text = _string(name, value)
    if len(text) > _LONGEST_NAME or not _LAYER_NAME.fullmatch(text):
        raise ValueError(
            f"{name} is {_shown(text)}, expected up to {_LONGEST_NAME} letters, digits, '_', and '.' "
            "between them"
        )
    return text


def _inputs(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_INPUTS:
        raise ValueError(f"{name} is {_shown(value)}, expected a list of 1 to {_MOST_INPUTS} names")
    return tuple(_layer_name(name, each) for each in value)


def _one_of(allowed: Sequence[str]) -> Callable[[str, object], str]:
    def read(name: str, value: object) -> str:
        if value not in allowed:
            raise ValueError(f"{name} is {_shown(value)}, expected one of {', '.join(allowed)}")
        return str(value)

    return read


def _whole(name: str, value: object, least: int, most: int) -> int:
    # JSON's true and false are no numbers.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        text = f"{name} is {_shown(value)}, expected a whole number of {least} to {most}"
        raise ValueError(text)
    return value


def _extent(name: str, value: object) -> int | tuple[int, ...]:
    lengths = (2, 4) if name == "padding" else (2,)
    if not isinstance(value, list):
        return _whole(name, value, _EXTENTS[name], _LARGEST_EXTENT)
    if len(value) not in lengths:
        several = " or ".join(map(str, lengths))
        raise ValueError(f"{name} is {_shown(value)}, expected one number or {several}")
    return tuple(_whole(name, each, _EXTENTS[name], _LARGEST_EXTENT) for each in value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {_shown(value)}, expected true or false")
    return value


def _epsilon(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1e-12 <= value <= 1:
        raise ValueError(f"{name} is {_shown(value)}, expected 1e-12 to 1")
    return float(value)


def _slope(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {_shown(value)}, expected 0 to 1")
    return float(value)


def _shown(value: object) -> str:
    """``value`` in few characters."""
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


_READERS: dict[str, Callable[[str, object], Any]] = {
    "name": _layer_name,
    "kind": _one_of(get_args(Kind)),
    "activation": _one_of(get_args(Activation)),
    "inputs": _inputs,
    "start": lambda name, value: _whole(name, value, 0, _MOST_CHANNELS),
    "epsilon": _epsilon,
    "slope": _slope,
    **{name: lambda name, value: _whole(name, value, 1, _MOST_CHANNELS) for name in _CHANNELS},
    **dict.fromkeys(_EXTENTS, _extent),
    **dict.fromkeys(_FLAGS, _flag),
}
