"""What is suggested for a number of groups, and what it keeps beside contiguous and random groups."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootmodels.layer import Layer
from rootmodels.suggest.grouping import (
    Grouping,
    Piece,
    contiguous,
    random_grouping,
    sizes_of,
    suggest_groups,
)
from rootmodels.suggest.study import Study

WAYS = ("suggested", "contiguous", "random")
RANDOM_GROUPINGS = 5
"""What random groups keep is the mean of so many."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a convolution's responses keep of their energy in groups, by the way of grouping."""

    fitted: Mapping[str, float]
    """0 to 1."""
    as_they_were: Mapping[str, float]
    """With the weights as they were; may be below 0."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Suggested groups for a network, so many for each convolution whose channels divide so."""

    degree: int
    grouping: Grouping
    kept: Mapping[str, Kept]
    """By the convolution's name; of those in groups alone."""
    layers: tuple[Layer, ...]
    """Of the network in these groups."""


def find(study: Study, degree: int, tell: Callable[[str], object] = str) -> Finding:
    """The groups suggested for ``degree``, and what they keep; ``tell`` is told what it is at."""
    pieces = study.pieces_for(degree)
    tell(f"looking for {degree} groups")
    sizes = sizes_of(pieces)
    suggested = suggest_groups(pieces, degree)
    groupings = {
        "suggested": [suggested],
        "contiguous": [{name: contiguous(size, degree) for name, size in sizes.items()}],
        "random": [random_grouping(sizes, degree, seed) for seed in range(RANDOM_GROUPINGS)],
    }
    kept: dict[str, Kept] = {}
    for number, piece in enumerate(pieces, 1):
        tell(f"what {piece.name} keeps in {degree} groups ({number} of {len(pieces)})")
        kept[piece.name] = _kept(piece, groupings)
    layers, _ = study.network(degree, suggested)
    return Finding(degree, suggested, kept, layers)


def _kept(piece: Piece, groupings: Mapping[str, list[Grouping]]) -> Kept:
    labels = {
        way: [(one[piece.taken], one[piece.made]) for one in some]
        for way, some in groupings.items()
    }
    energy = piece.energy
    return Kept(
        {way: statistics.mean(energy.kept(*one) for one in some) for way, some in labels.items()},
        {
            way: statistics.mean(energy.kept_without_fit(*one) for one in some)
            for way, some in labels.items()
        },
    )


def content(study: Study, findings: Mapping[str, Finding]) -> dict[str, Any]:
    """All of it as JSON has it; ``findings`` by the names of the files that they are in."""
    pieces = {piece.name: piece for piece in study.pieces}
    return {
        "model": study.source.model.name,
        "images": study.images,
        "not_grouped": {name: reason for name, reason in study.reasons.items() if reason},
        "degrees": {
            str(each.degree): {
                "file": file,
                "layers": {
                    name: {
                        "energy_kept": dict(kept.fitted),
                        "energy_kept_without_fit": dict(kept.as_they_were),
                        "takes": _members(each.grouping[pieces[name].taken]),
                        "makes": _members(each.grouping[pieces[name].made]),
                    }
                    for name, kept in each.kept.items()
                },
            }
            for file, each in findings.items()
        },
    }


def _members(labels: np.ndarray[Any, np.dtype[np.intp]]) -> list[list[int]]:
    """The channels of each group, by their numbers in the original."""
    return [np.flatnonzero(labels == group).tolist() for group in range(int(labels.max()) + 1)]
