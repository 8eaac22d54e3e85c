"""Which layers of a network can be analysed, by which names, and which are adjacent; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.sums import LayerShape, Pair, Plan, have_common_grid, make_plan
from rootmodels.layer import Layer, find_layer


class Stage(Enum):
    """Where in a layer its responses are taken."""

    AFTER_RELU = "after_relu"
    BEFORE_RELU = "before_relu"


def network_plan(
    graph: Sequence[Layer],
    pairs: Iterable[Pair] = (),
    layers: Iterable[str] = (),
) -> Plan:
    """The plan for ``pairs`` and further ``layers``; without both, for all adjacent pairs.

    Adjacent layers whose maps have no grid in common, as of 55 and 27 pixels, are looked at for themselves;
    so are all of a network without adjacent ones.

    ``graph`` is that of the very network whose responses will be summed: the plan tells how the sums lie in
    memory, and weights may have other classes and images than their family. Layers may be named as the paper
    does or by their path in the torch module; the plan has the paper's names.

    Raises:
        UnknownLayerError, AnalysisError: see :func:`rootmodels.analysis.sums.make_plan`.
    """
    wanted = [(_paper_name(graph, first), _paper_name(graph, second)) for first, second in pairs]
    names = [_paper_name(graph, name) for name in layers]
    available = analysable_layers(graph)
    if not available:
        raise AnalysisError("it has no convolution, expected one at least")
    if not wanted and not names:
        shapes = {shape.name: shape for shape in available}
        adjacent = adjacent_pairs(graph)
        wanted = [
            (first, second)
            for first, second in adjacent
            if have_common_grid(shapes[first].size, shapes[second].size)
        ]
        names = [name for pair in adjacent if pair not in wanted for name in pair]
        names = names if adjacent else list(shapes)
    return make_plan(available, wanted, names)


def analysable_layers(graph: Iterable[Layer]) -> tuple[LayerShape, ...]:
    """The convolutions of ``graph`` in the order they run."""
    return tuple(
        LayerShape(layer.name, layer.out_channels, *layer.sizes, layer.groups)
        for layer in graph
        if layer.kind == "conv"
    )


def adjacent_pairs(graph: Sequence[Layer]) -> list[Pair]:
    """Convolutions of which the second alone takes the responses of the first, pooled or as they are.

    In Network-in-Network these are all neighbours, in ResNet-50 the neighbours inside of a bottleneck: what
    comes before and after those is an addition, or goes two ways.
    """
    takers: dict[str, list[Layer]] = {}
    for layer in graph:
        for name in layer.inputs:
            takers.setdefault(name, []).append(layer)
    pairs = []
    for first in graph:
        following = first
        while len(takers.get(following.name, ())) == 1:
            following = takers[following.name][0]
            if following.kind not in ("max_pool", "avg_pool"):
                break
        if first.kind == "conv" and following.kind == "conv" and following is not first:
            pairs.append((first.name, following.name))
    return pairs


def _paper_name(graph: Sequence[Layer], name: str) -> str:
    layer = find_layer(graph, name)
    return layer.name if layer else name
