"""The sums of a whole analysis: which layers and pairs, their moments, and all of it as bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.moments import Array, Moments, merge_all

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Name and form of a layer; ``groups`` are the filter groups of its convolution."""

    name: str
    channels: int
    height: int
    width: int
    groups: int = 1

    @property
    def pixels(self) -> int:
        """Pixels of its map: samples per image."""
        return self.height * self.width

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class Plan:
    """What an analysis looks at: layers in the order they run, pairs in the order they were asked for.

    Every layer of a pair is among the layers.
    """

    layers: tuple[LayerShape, ...]
    pairs: tuple[Pair, ...]

    def layer(self, name: str) -> LayerShape:
        """The layer called ``name``, which is one of the plan."""
        return next(layer for layer in self.layers if layer.name == name)

    def pair(self, pair: Pair) -> tuple[LayerShape, LayerShape]:
        """The two layers of ``pair``, which is one of the plan."""
        return self.layer(pair[0]), self.layer(pair[1])

    def pixels(self, pair: Pair) -> int:
        """Samples per image of ``pair``: the pixels of the larger map."""
        first, second = self.pair(pair)
        return max(first.pixels, second.pixels)


def make_plan(
    available: Sequence[LayerShape], pairs: Sequence[Pair] = (), layers: Sequence[str] = ()
) -> Plan:
    """The plan for ``pairs`` and further ``layers``; without both, for all adjacent pairs.

    Args:
        available: The layers there are, in the order they run. Neighbours in it are adjacent.
        pairs: Two layers each, in any order; the first one's channels become the rows. One that comes
            twice is looked at once.
        layers: Layers to be looked at for themselves.

    Raises:
        UnknownLayerError: for a layer that is not available; names those that are.
        AnalysisError: for a pair of maps of which neither size is a multiple of the other.
    """
    shapes = {shape.name: shape for shape in available}
    if not pairs and not layers:
        names = list(shapes)
        pairs = list(pairwise(names))
    wanted = {*layers, *(name for pair in pairs for name in pair)}
    for name in sorted(wanted - shapes.keys()):
        raise UnknownLayerError(f"no layer is called {name!r}; there are: {', '.join(shapes)}")
    for first, second in pairs:
        sizes = shapes[first].size, shapes[second].size
        try:
            _check_sizes(*sizes)
        except AnalysisError as error:
            raise AnalysisError(f"pair {first}-{second}: {error}") from None
    return Plan(
        tuple(shape for shape in available if shape.name in wanted), tuple(dict.fromkeys(pairs))
    )


class UnknownLayerError(AnalysisError):
    """No layer has the given name; names those there are."""


def have_common_grid(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether maps of these heights and widths can be a pair."""
    try:
        _check_sizes(first, second)
    except AnalysisError:
        return False
    return True


def _check_sizes(first: tuple[int, int], second: tuple[int, int]) -> None:
    """Each pixel of the smaller map has to stand for as many of the larger one."""
    large = (max(first[0], second[0]), max(first[1], second[1]))
    small = (min(first[0], second[0]), min(first[1], second[1]))
    sizes = " and ".join(f"{height}x{width}" for height, width in (small, large))
    if large not in (first, second):
        sizes = " and ".join(f"{height}x{width}" for height, width in (first, second))
        raise AnalysisError(f"neither of maps of {sizes} is the larger")
    if large[0] % small[0] or large[1] % small[1]:
        raise AnalysisError(
            f"maps of {sizes} pixels have no grid in common; "
            "expected height and width of one to be multiples of those of the other"
        )


@dataclass(frozen=True, slots=True)
class Sums:
    """Moments of every layer of ``plan`` on its own pixels, and of every pair on the larger map's."""

    plan: Plan
    images: int
    layers: Mapping[str, Moments]
    pairs: Mapping[Pair, Moments]

    @classmethod
    def zero(cls, plan: Plan) -> Sums:
        """Those of no images."""
        return cls(
            plan,
            0,
            {shape.name: Moments.zero(shape.channels, shape.channels) for shape in plan.layers},
            {
                pair: Moments.zero(first.channels, second.channels)
                for pair in plan.pairs
                for first, second in [plan.pair(pair)]
            },
        )

    @classmethod
    def from_matrices(
        cls,
        plan: Plan,
        images: int,
        means: Mapping[str, Array],
        scatters: Mapping[str, Array],
        crosses: Mapping[Pair, Array],
    ) -> Sums:
        """From what is kept of them: means [C], scatters [C, C] and cross scatters [C1, C2].

        A pair's means are those of its layers, because all pixels stand for equally many.
        """
        return cls(
            plan,
            images,
            {
                shape.name: Moments(
                    images * shape.pixels,
                    means[shape.name],
                    means[shape.name],
                    scatters[shape.name],
                )
                for shape in plan.layers
            },
            {
                pair: Moments(
                    images * plan.pixels(pair), means[pair[0]], means[pair[1]], crosses[pair]
                )
                for pair in plan.pairs
            },
        )

    def merge(self, other: Sums) -> Sums:
        """Those of both sets of images.

        Raises:
            AnalysisError: if they are of different plans.
        """
        return merge_sums([self, other])

    def to_bytes(self) -> bytes:
        """Images, means, scatters and cross scatters as float64, little-endian, one after the other."""
        arrays = [np.array([self.images], "<f8")]
        arrays += [self.layers[shape.name].mean_rows for shape in self.plan.layers]
        arrays += [self.layers[shape.name].scatter.ravel() for shape in self.plan.layers]
        arrays += [self.pairs[pair].scatter.ravel() for pair in self.plan.pairs]
        data: bytes = np.concatenate(arrays, dtype="<f8").tobytes()
        return data

    @classmethod
    def from_bytes(cls, plan: Plan, data: bytes | memoryview) -> Sums:
        """What :meth:`to_bytes` gave for the same ``plan``."""
        values = np.frombuffer(data, "<f8").astype(np.float64)
        position = 1

        def take(*shape: int) -> Array:
            nonlocal position
            size = math.prod(shape)
            position += size
            return values[position - size : position].reshape(shape)

        shapes = plan.layers
        means = {shape.name: take(shape.channels) for shape in shapes}
        scatters = {shape.name: take(shape.channels, shape.channels) for shape in shapes}
        crosses = {
            pair: take(first.channels, second.channels)
            for pair in plan.pairs
            for first, second in [plan.pair(pair)]
        }
        return cls.from_matrices(plan, int(values[0]), means, scatters, crosses)

    @staticmethod
    def byte_size(plan: Plan) -> int:
        """Length of :meth:`to_bytes`."""
        values = 1 + sum(shape.channels * (1 + shape.channels) for shape in plan.layers)
        for pair in plan.pairs:
            first, second = plan.pair(pair)
            values += first.channels * second.channels
        return 8 * values


def merge_sums(parts: Sequence[Sums]) -> Sums:
    """The sums of all ``parts``, at least one, in any order.

    Raises:
        AnalysisError: if they are of different plans.
    """
    plan = parts[0].plan
    for part in parts:
        if part.plan != plan:
            raise AnalysisError("sums of different layers or pairs came, expected the same")
    return Sums(
        plan,
        sum(part.images for part in parts),
        {
            shape.name: merge_all([part.layers[shape.name] for part in parts])
            for shape in plan.layers
        },
        {pair: merge_all([part.pairs[pair] for part in parts]) for pair in plan.pairs},
    )
