"""Filter groups for the convolutions of any network: which can have them, and how many. No torch, no files.

A root module is a convolution in groups, followed by one of 1x1 that mixes them again ("Deep Roots", Ioannou
et al., CVPR 2017, arXiv 1605.06489). So a convolution can be grouped if it is larger than 1x1, takes all
channels, does not see the images, and whatever way its responses go, a layer over all channels that stays
as it is comes before the next one in groups and before the end. By default that is a 1x1 convolution or a
linear layer, since what is larger is to be grouped itself; with some layers chosen, those left out mix too.

The degree by depth, as the topologies of the paper's Table 8 have it: a stage is what is to be grouped with
responses of one size, stages count from 0 in order of depth, and a convolution of stage s has

- ``root``: degree / 2^s groups, 1 at least; most in the first, halved from stage to stage
- ``tree``: degree * 2^s groups; fewest in the first
- ``col``: the degree everywhere

Where that many groups do not divide a convolution's channels, it stays as it is. Groups of one's own choice
(``own``) are for whoever studies what they do: they may be anywhere, mixed or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from rootmodels.cost import layer_cost
from rootmodels.family import Topology
from rootmodels.layer import IMAGES, Layer

RootTopology = Literal["root", "tree", "col"]

LARGEST_DEGREE = 1024
"""What a model file may tell."""


class RootsError(ValueError):
    """Nothing can be grouped, or not so; says what came and why not."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """What becomes of one convolution."""

    layer: Layer
    groups: int
    """As many as before where ``reason`` tells why."""
    reason: str = ""
    """Why it is not grouped; "" if it is, or would be but for its stage, of which the topology asks one."""


@dataclass(frozen=True, slots=True)
class Rooted:
    """A network in filter groups: its layers, what became of each convolution, and what all of it costs."""

    topology: Topology
    degree: int
    """Of groups of one's own choice, the most."""
    layers: tuple[Layer, ...]
    groupings: tuple[Grouping, ...]
    params: int
    macs: int
    """For one image."""
    name: str = ""
    """A name of one's own, if it has one."""

    @property
    def title(self) -> str:
        """What tables and pictures call it."""
        return self.name or f"{self.topology}-{self.degree}"


def groups_at(topology: RootTopology, degree: int, stage: int) -> int:
    """Filter groups of a convolution in ``stage``, counted from 0.

    Raises:
        RootsError: for a topology that there is not.
    """
    match topology:
        case "root":
            return max(1, degree >> stage)
        case "tree":
            return degree << stage
        case "col":
            return degree
    raise RootsError(f"topology {topology!r} came, expected root, tree or col")


def why_not(layers: Sequence[Layer], glob: str = "*") -> dict[str, str]:
    """For each convolution, by name, why it cannot be in groups; "" if it can.

    Args:
        layers: Of a network, in the order they run.
        glob: Names of those to be grouped, as a shell's patterns have it.

    Raises:
        RootsError: if ``glob`` is the name of no convolution.
    """
    convolutions = [layer for layer in layers if layer.kind == "conv"]
    _check_glob(convolutions, glob)
    by_name = {layer.name: layer for layer in layers}
    reasons = {layer.name: _own_reason(layer, by_name, glob) for layer in convolutions}
    # What mixes must stay whole: known only once each convolution has been looked at for itself.
    mixing = {
        layer.name
        for layer in layers
        if layer.has_weights and layer.groups == 1 and reasons.get(layer.name, "linear")
    }
    takers = _takers(layers)
    return {
        name: reason or _unmixed(by_name[name], takers, mixing) for name, reason in reasons.items()
    }


def rooted(layers: Sequence[Layer], topology: RootTopology, degree: int, glob: str = "*") -> Rooted:
    """``layers`` in filter groups.

    Raises:
        RootsError: if nothing can be grouped, saying why for each convolution; or for a degree below 2.
    """
    if not 2 <= degree <= LARGEST_DEGREE:
        raise RootsError(f"degree {degree} came, expected 2 to {LARGEST_DEGREE}")
    reasons = why_not(layers, glob)
    candidates = [layer for layer in layers if reasons.get(layer.name) == ""]
    stages = {size: n for n, size in enumerate(dict.fromkeys(one.sizes for one in candidates))}
    groupings: dict[str, Grouping] = {}
    for layer in layers:
        if layer.name not in reasons:
            continue
        reason, groups = reasons[layer.name], layer.groups
        if not reason:
            wanted = groups_at(topology, degree, stages[layer.sizes])
            reason = indivisible(layer, wanted)
            groups = groups if reason else wanted
        groupings[layer.name] = Grouping(layer, groups, reason)
    if all(one.groups == one.layer.groups for one in groupings.values()):
        of_reason: dict[str, list[str]] = {}
        for name, one in groupings.items():
            if one.reason:
                of_reason.setdefault(one.reason, []).append(name)
        told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in of_reason.items())
        raise RootsError(f"nothing can be grouped as {topology}-{degree}: {told}")
    return _changed(layers, topology, degree, groupings)


def grouped(layers: Sequence[Layer], wanted: Mapping[str, int]) -> Rooted:
    """``layers`` in groups of one's own choice.

    Args:
        layers: Of a network, in the order they run.
        wanted: Groups by the name of a convolution, or a pattern of names as a shell has it; the last one
            that fits counts, and what fits none stays as it is.

    Raises:
        RootsError: if a pattern fits no convolution, a convolution's channels do not divide into its groups,
            it is in groups already, or nothing is left to be in groups.
    """
    convolutions = [layer for layer in layers if layer.kind == "conv"]
    for glob in wanted:
        _check_glob(convolutions, glob)
    groupings: dict[str, Grouping] = {}
    for layer in convolutions:
        fits = [groups for glob, groups in wanted.items() if fnmatchcase(layer.name, glob)]
        groups = fits[-1] if fits else layer.groups
        if groups != layer.groups:
            if layer.groups > 1:
                raise RootsError(f"{layer.name} is in {layer.groups} groups already")
            if reason := indivisible(layer, groups):
                raise RootsError(f"{layer.name}: {reason}")
        groupings[layer.name] = Grouping(layer, groups, "" if fits else "not chosen")
    degree = max((one.groups for one in groupings.values() if not one.reason), default=1)
    if degree == 1:
        raise RootsError(
            "nothing is in groups; expected 2 groups or more for one convolution at least"
        )
    return _changed(layers, "own", degree, groupings)


def by_stage(layers: Sequence[Layer], groups: Sequence[int]) -> dict[str, int]:
    """Groups of all convolutions that :func:`why_not` has nothing against, told stage by stage.

    Raises:
        RootsError: if there are more or fewer stages.
    """
    reasons = why_not(layers)
    candidates = [layer for layer in layers if reasons.get(layer.name) == ""]
    stages = list(dict.fromkeys(layer.sizes for layer in candidates))
    if len(stages) != len(groups):
        told = "; ".join(
            f"{number}: {', '.join(one.name for one in candidates if one.sizes == sizes)}"
            for number, sizes in enumerate(stages, 1)
        )
        raise RootsError(
            f"groups of {len(groups)} stages came; there are {len(stages)}: "
            f"{told or 'no convolution can be grouped'}"
        )
    return {layer.name: groups[stages.index(layer.sizes)] for layer in candidates}


def unmixed(variant: Rooted) -> list[str]:
    """Of each convolution whose groups nothing mixes: its name, and before what, in words."""
    chosen = {one.layer.name for one in variant.groupings if one.groups > 1}
    takers = _takers(variant.layers)
    mixing = {layer.name for layer in variant.layers if layer.has_weights and layer.groups == 1}
    found = (
        (layer.name, _unmixed(layer, takers, mixing))
        for layer in variant.layers
        if layer.name in chosen
    )
    return [f"{name}: {reason}" for name, reason in found if reason]


def _changed(
    layers: Sequence[Layer], topology: Topology, degree: int, groupings: Mapping[str, Grouping]
) -> Rooted:
    changed = tuple(
        replace(layer, groups=groupings[layer.name].groups) if layer.name in groupings else layer
        for layer in layers
    )
    params, macs = total_cost(changed)
    return Rooted(topology, degree, changed, tuple(groupings.values()), params, macs)


def _check_glob(convolutions: Sequence[Layer], glob: str) -> None:
    if not any(fnmatchcase(layer.name, glob) for layer in convolutions):
        names = ", ".join(layer.name for layer in convolutions) or "none"
        raise RootsError(f"no convolution's name is like {glob!r}; there are: {names}")


def _takers(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """By the name of a layer, who takes its responses."""
    takers: dict[str, list[Layer]] = {}
    for layer in layers:
        for name in dict.fromkeys(layer.inputs):
            takers.setdefault(name, []).append(layer)
    return takers


def total_cost(layers: Sequence[Layer]) -> tuple[int, int]:
    """Parameters, and multiply-accumulates for one image."""
    costs = [layer_cost(layer) for layer in layers]
    return sum(cost.params for cost in costs), sum(cost.macs for cost in costs)


def _own_reason(layer: Layer, by_name: dict[str, Layer], glob: str) -> str:
    """Why a convolution is not grouped, whatever comes after it; "" if it could be."""
    if not fnmatchcase(layer.name, glob):
        return "not chosen"
    if layer.kernels == (1, 1):
        return "1x1"
    if layer.groups > 1:
        return f"in {layer.groups} groups already"
    if _sees_images(layer, by_name):
        return "sees the images"
    return ""


def _sees_images(layer: Layer, by_name: dict[str, Layer]) -> bool:
    """Whether what it takes are the images, if scaled, pooled or cut into parts."""
    left, seen = list(layer.inputs), set[str]()
    while left:
        name = left.pop()
        if name == IMAGES:
            return True
        if name not in seen and not by_name[name].has_weights:
            left += by_name[name].inputs
        seen.add(name)
    return False


def _unmixed(layer: Layer, takers: dict[str, list[Layer]], mixing: set[str]) -> str:
    """Where the responses of ``layer`` go unmixed, in words; "" if they are mixed on every way."""
    left, seen = [layer], {layer.name}
    while left:
        one = left.pop()
        following = takers.get(one.name, [])
        if not following:
            return "nothing mixes its groups before the end"
        for taker in following:
            if taker.name in mixing or taker.name in seen:
                continue
            if taker.has_weights:
                return f"no 1x1 mixes its groups before {taker.name}"
            seen.add(taker.name)
            left.append(taker)
    return ""


def indivisible(layer: Layer, groups: int) -> str:
    """Why ``layer`` cannot be in so many groups; "" if it can."""
    for channels in (layer.in_channels, layer.out_channels):
        if channels % groups:
            return f"{channels} channels do not divide into {groups} groups"
    return ""
