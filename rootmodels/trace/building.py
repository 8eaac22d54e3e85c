"""The graph while it is built: layers by name, the tensors of those that have some, and values on the way."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from rootmodels.layer import IMAGES, Activation, Extent, Kind, Layer
from rootmodels.model_graph import layer_path
from rootmodels.trace.errors import module_path, operation, refusal

Shape = tuple[int, ...]
Pads = tuple[int, int, int, int]

BATCH = 2
"""Images that the module is exported with: not 1, so that their dimension is told from one of one pixel."""

_LONGEST_NAME = 72
_NO_PADS: Pads = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Value:
    """What a layer gives, in the shape that the module sees: [N, C, H, W] and [N, C] are layers', others not.

    ``pads`` (above, left, below, right) of ``fill`` are around it, which the next layer takes for its own.
    """

    source: str
    shape: Shape
    pads: Pads = _NO_PADS
    fill: float = 0.0

    @property
    def channels(self) -> int:
        """Length of the second dimension."""
        return self.shape[1]

    @property
    def size(self) -> Extent:
        """Height and width of maps, 1 of vectors."""
        if len(self.shape) < 4:
            return 1
        height, width = self.shape[2:]
        return height if height == width else (height, width)


@dataclass(slots=True)
class Graph:
    """Layers in the order they run, and tensors by their name in the training form."""

    image_size: int
    layers: list[Layer] = field(default_factory=list)
    tensors: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    """What each layer gives."""
    _reshaped: dict[tuple[str, Shape], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shapes[IMAGES] = (BATCH, 3, self.image_size, self.image_size)

    def add(
        self,
        node: fx.Node,
        kind: Kind,
        inputs: list[Value],
        shape: Shape,
        *,
        name: str = "",
        activation: Activation = "none",
        **numbers: Any,
    ) -> Value:
        """A layer of ``inputs`` that gives ``shape``, [N, C, H, W] or [N, C]; its name is free already."""
        taken = tuple(self.plain(node, value) for value in inputs)
        channels = [self.shapes[source][1] for source in taken]
        made = Value(name or self.name(node), shape)
        self.layers.append(
            Layer(
                made.source,
                kind,
                numbers.pop("kernel", 1),
                sum(channels) if kind == "concat" else channels[0],
                shape[1],
                made.size,
                taken,
                activation=activation,
                **numbers,
            )
        )
        self.shapes[made.source] = shape
        return made

    def add_affine(self, node: fx.Node, value: Value, weight: Tensor, bias: Tensor) -> Value:
        """``value`` times ``weight`` [C] plus ``bias`` [C], in the shape that it has."""
        name = self.name(node, "affine")
        path = layer_path(name)
        self.keep(f"{path}.weight", weight)
        self.keep(f"{path}.bias", bias)
        source = Value(value.source, self.shapes[value.source], value.pads, value.fill)
        made = self.add(node, "affine", [source], source.shape, name=name, path=path, bias=True)
        return Value(made.source, value.shape)

    def keep(self, name: str, tensor: Tensor) -> None:
        """Keep ``tensor`` as the one called ``name``."""
        self.tensors[name] = np.ascontiguousarray(tensor.detach().cpu().float().numpy())

    def name(self, node: fx.Node, what: str = "") -> str:
        """A new name for what ``node`` does: that of its module, if the module is this operation alone."""
        path, kind = module_path(node)
        is_leaf = kind.startswith("torch.nn.modules.") and ".container." not in kind
        parts = [path] if path and is_leaf and not what else [path, what or operation(node)]
        return self.free(".".join(part for part in parts if part))

    def free(self, name: str) -> str:
        """``name`` in the letters that names have, with a number if there is one already."""
        parts = (re.sub(r"[^A-Za-z0-9_]", "_", part) for part in name.split("."))
        base = ".".join(part for part in parts if part)[-_LONGEST_NAME:].strip(".")
        name, number = base, 1
        while name in self.shapes:
            number += 1
            name = f"{base}_{number}"
        return name

    def plain(self, node: fx.Node, value: Value) -> str:
        """The layer that gives ``value`` in its very shape, [N, C, H, W] or [N, C], made if there is none."""
        if value.pads != _NO_PADS:
            raise refusal(
                node,
                f"it takes a map with padding of {value.fill:g}",
                "padding goes with a convolution or a pooling alone",
            )
        source, shape = value.source, value.shape
        if shape == self.shapes[source]:
            return source
        if len(shape) not in (2, 4) or shape[0] != BATCH:
            raise refusal(node, f"it takes values of shape {[*shape]}, expected maps or vectors")
        if (source, shape) not in self._reshaped:
            if len(self.shapes[source]) == 4:
                flat = (BATCH, math.prod(self.shapes[source][1:]))
                source = self._reshape(node, source, flat, "flatten")
            if len(shape) == 4:
                source = self._reshape(node, source, shape, "unflatten")
            self._reshaped[value.source, shape] = source
        return self._reshaped[value.source, shape]

    def _reshape(self, node: fx.Node, source: str, shape: Shape, kind: Kind) -> str:
        if (source, shape) not in self._reshaped:
            name = self.free(f"{source}.{kind}")
            whole = Value(source, self.shapes[source])
            self._reshaped[source, shape] = self.add(node, kind, [whole], shape, name=name).source
        return self._reshaped[source, shape]
