"""Layers that are one thing, put together: normalisations and activations with what they follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rootmodels.layer import Layer

Tensors = dict[str, NDArray[np.generic]]


def simplify(layers: Sequence[Layer], tensors: Tensors, last: str) -> tuple[list[Layer], Tensors]:
    """The same network in as few layers as say it, up to ``last``, and its tensors."""
    found = _needed(layers, last)
    for step in (_take_norms, _take_activations, _make_global):
        found, tensors, last = step(found, dict(tensors), last)
    names = {
        name
        for layer in found
        for name in (layer.path, layer.norm)
        if name and layer.has_parameters
    }
    kept = {key: tensor for key, tensor in tensors.items() if key.rpartition(".")[0] in names}
    return found, kept


def _needed(layers: Sequence[Layer], last: str) -> list[Layer]:
    """The layers that ``last`` depends on."""
    wanted = {last}
    kept = []
    for layer in reversed(layers):
        if layer.name in wanted:
            wanted.update(layer.inputs)
            kept.append(layer)
    return kept[::-1]


def _take_norms(
    layers: list[Layer], tensors: Tensors, last: str
) -> tuple[list[Layer], Tensors, str]:
    """Give convolutions the normalisations that alone follow them."""
    merges: dict[str, Layer] = {}
    for before, layer in _only_followers(layers, last):
        if layer.kind == "affine" and layer.norm and before.kind == "conv":
            norm = f"{before.path}-norm"
            for key in [key for key in tensors if key.startswith(f"{layer.norm}.")]:
                tensors[norm + key.removeprefix(layer.norm)] = tensors.pop(key)
            merges[layer.name] = replace(before, norm=norm, epsilon=layer.epsilon)
    found, last = _merged(layers, merges, last)
    return found, tensors, last


def _take_activations(
    layers: list[Layer], tensors: Tensors, last: str
) -> tuple[list[Layer], Tensors, str]:
    """Give layers the activations that alone follow them."""
    merges: dict[str, Layer] = {}
    for before, layer in _only_followers(layers, last):
        if layer.kind == "identity" and before.activation == "none" and before.name not in merges:
            merges[layer.name] = replace(before, activation=layer.activation, slope=layer.slope)
    found, last = _merged(layers, merges, last)
    return found, tensors, last


def _make_global(
    layers: list[Layer], tensors: Tensors, last: str
) -> tuple[list[Layer], Tensors, str]:
    """Have a mean of each map that is flattened be a global average."""
    sizes = {layer.name: layer.size for layer in layers}
    merges: dict[str, Layer] = {}
    for before, layer in _only_followers(layers, last):
        one = before.kind == "adaptive_avg_pool" and before.size == 1
        if layer.kind == "flatten" and one and before.activation == "none":
            size = sizes.get(before.inputs[0], 1)
            merges[layer.name] = replace(
                before,
                kind="global_avg_pool",
                kernel=size,
                activation=layer.activation,
                slope=layer.slope,
            )
    found, last = _merged(layers, merges, last)
    return found, tensors, last


def _only_followers(layers: Sequence[Layer], last: str) -> list[tuple[Layer, Layer]]:
    """Each layer that nobody but one takes, which takes nothing else, and that one."""
    uses = Counter(name for layer in layers for name in layer.inputs)
    uses[last] += 1
    by_name = {layer.name: layer for layer in layers}
    return [
        (by_name[layer.inputs[0]], layer)
        for layer in layers
        if len(layer.inputs) == 1 and layer.inputs[0] in by_name and uses[layer.inputs[0]] == 1
    ]


def _merged(
    layers: Sequence[Layer], merges: dict[str, Layer], last: str
) -> tuple[list[Layer], str]:
    """``layers`` without those in ``merges``, whose place is taken by the layer before them, as changed."""
    changed = {layer.name: layer for layer in merges.values()}
    instead = {name: layer.name for name, layer in merges.items()}

    def final(name: str) -> str:
        return instead.get(name, name)

    found = [
        replace(own, inputs=tuple(final(name) for name in own.inputs))
        for own in (changed.get(layer.name, layer) for layer in layers if layer.name not in merges)
    ]
    return found, final(last)
