"""In which order a network's channels can be: whose order is free, and what has to follow it. No torch.

The order of the filters of a convolution means nothing: if they come in another one, and whoever takes
their responses takes its weights in that order too, the network computes the same. Layers whose channels
can only be reordered together are one *space*: a pooling and what it pools, both sides of an addition, a
depthwise convolution and its input. What lies between two spaces as a concatenation or a flattening follows
from both. Some orders are fixed: that of the images, of the logits, and of what is cut, shuffled or taken
by a convolution in groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rootmodels.layer import IMAGES, Layer

Order = NDArray[np.intp]
"""For each channel of the reordered network, which one of the original it is."""

_FOLLOWS = {
    "concat": "puts channels of several layers together",
    "flatten": "makes vectors of maps",
}
"""Layers whose order follows from that of what they take, and cannot be chosen as a whole."""

_IN_ORDER = {
    "slice": "cuts its channels",
    "shuffle": "shuffles its channels",
    "unflatten": "takes it apart",
}
"""Layers that take channels by their number."""


@dataclass(frozen=True, slots=True)
class Space:
    """Channels that are reordered together."""

    name: str
    """That of the first layer whose output they are."""
    channels: int
    fixed: str
    """Why their order cannot be chosen; "" if it can."""


def is_depthwise(layer: Layer) -> bool:
    """Whether each of its filters takes the channel of its own number, and that alone."""
    return layer.kind == "conv" and 1 < layer.groups == layer.in_channels == layer.out_channels


def find_spaces(layers: Sequence[Layer]) -> dict[str, Space]:
    """The space of each layer's output, by the layer's name; that of IMAGES too."""
    finder = _Finder(layers)
    for layer in layers:
        finder.look_at(layer)
    finder.fix(layers[-1].name, "they are the logits")
    return {name: finder.space(name) for name in finder.parents}


def channel_orders(layers: Sequence[Layer], chosen: Mapping[str, Order]) -> dict[str, Order]:
    """The order of each layer's output where spaces, by name, have the ``chosen`` ones.

    Raises:
        ValueError: if a space whose order is fixed was chosen; saying why it is.
    """
    spaces = find_spaces(layers)
    for space in {one.name: one for one in spaces.values()}.values():
        if space.name in chosen and space.fixed:
            raise ValueError(f"the channels of {space.name} cannot be reordered: {space.fixed}")
    orders: dict[str, Order] = {IMAGES: np.arange(spaces[IMAGES].channels)}
    for layer in layers:
        taken = [orders[name] for name in layer.inputs]
        if layer.kind == "concat":
            starts = np.cumsum([0, *(len(order) for order in taken[:-1])])
            orders[layer.name] = np.concatenate(
                [order + start for order, start in zip(taken, starts, strict=True)]
            )
        elif layer.kind == "flatten":
            pixels = layer.out_channels // layer.in_channels
            orders[layer.name] = (taken[0][:, None] * pixels + np.arange(pixels)).ravel()
        elif layer.kind in _IN_ORDER or (layer.has_weights and not is_depthwise(layer)):
            own = spaces[layer.name].name
            orders[layer.name] = chosen.get(own, np.arange(layer.out_channels))
        else:
            orders[layer.name] = taken[0]
    return orders


class _Finder:
    """Joins what has one order, and remembers whose order is fixed."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._channels = {IMAGES: 3} | {layer.name: layer.out_channels for layer in layers}
        self.parents = {name: name for name in self._channels}
        self._places = {name: place for place, name in enumerate(self.parents)}
        self._fixed: dict[str, str] = {IMAGES: "they are those of the images"}
        self._sources: dict[str, tuple[str, ...]] = {}

    def look_at(self, layer: Layer) -> None:
        """Do what ``layer`` asks of the order of what it takes, and of its own."""
        name = layer.name
        if layer.kind in _FOLLOWS:
            self._sources[name] = layer.inputs
            self._fixed[name] = f"{name} {_FOLLOWS[layer.kind]}"
        elif layer.kind in _IN_ORDER:
            for each in (layer.inputs[0], name):
                self.fix(each, f"{name} {_IN_ORDER[layer.kind]}")
        elif not layer.has_weights or is_depthwise(layer):
            roots = {self._root(taken) for taken in layer.inputs}
            if len(roots) > 1 and roots & self._sources.keys():
                for each in roots:
                    self.fix(each, f"{name} adds what other layers put together")
            for taken in layer.inputs:
                self._join(taken, name)
        elif layer.groups > 1:
            for each in (layer.inputs[0], name):
                self.fix(each, f"{name} is in {layer.groups} groups")

    def fix(self, name: str, reason: str) -> None:
        """Keep the order of ``name``, and of all that it follows from."""
        root = self._root(name)
        self._fixed.setdefault(root, reason)
        for source in self._sources.get(root, ()):
            self.fix(source, reason)

    def space(self, name: str) -> Space:
        """That of the output of ``name``."""
        root = self._root(name)
        return Space(root, self._channels[root], self._fixed.get(root, ""))

    def _root(self, name: str) -> str:
        while self.parents[name] != name:
            name = self.parents[name]
        return name

    def _join(self, first: str, second: str) -> None:
        one, other = sorted((self._root(first), self._root(second)), key=self._places.__getitem__)
        if one == other:
            return
        self.parents[other] = one
        if reason := self._fixed.get(one) or self._fixed.get(other):
            self._fixed[one] = reason
        # What follows from others is joined with what follows from nothing, or all of it is fixed.
        if sources := (*self._sources.get(one, ()), *self._sources.get(other, ())):
            self._sources[one] = sources
