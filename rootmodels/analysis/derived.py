"""What an analysis gives: from its sums to matrices, ranks and scores."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from rootmodels.analysis.blocks import BlockScore, block_scores
from rootmodels.analysis.covariance import (
    DEFAULT_TOLERANCE,
    correlation,
    covariance,
    varying,
    whitened,
    whitening,
)
from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.moments import Array
from rootmodels.analysis.sums import Pair, Sums


class Kind(enum.Enum):
    """What a matrix holds; those of a pair are [channels of first, channels of second]."""

    MEAN = "mean"
    CORRELATION = "correlation"
    COVARIANCE = "covariance"
    WHITENED = "whitened"
    SCATTER = "scatter"
    CROSS_SCATTER = "cross_scatter"


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix. ``layers`` is its layer, or the first and the second of its pair."""

    kind: Kind
    layers: tuple[str, ...]
    values: Array


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """How many channels of a layer are not constant, and the rank that whitening keeps."""

    varying_channels: int
    rank: int


@dataclass(frozen=True, slots=True)
class Derived:
    """Figures per layer and per pair, in the order of the plan, and the matrices asked for."""

    layers: tuple[LayerFigures, ...]
    scores: tuple[tuple[BlockScore, ...], ...]
    matrices: tuple[Matrix, ...]


def derive(sums: Sums, kinds: Collection[Kind], tolerance: float = DEFAULT_TOLERANCE) -> Derived:
    """Derive everything from ``sums``.

    Args:
        sums: Of at least one image, and of at least two samples per layer.
        kinds: The matrices wanted, of every layer or pair that has such a one.
        tolerance: See :func:`rootmodels.analysis.covariance.whitening`.

    Raises:
        AnalysisError: for sums of no images, of fewer than two samples, of responses that overflowed, or
            a tolerance out of range.
    """
    if sums.images == 0:
        raise AnalysisError("no images came, expected at least one")
    _check_finite(sums)
    whitenings = {name: whitening(moments, tolerance) for name, moments in sums.layers.items()}
    layers = tuple(
        LayerFigures(int(varying(moments).sum()), whitenings[name].rank)
        for name, moments in sums.layers.items()
    )
    white = {
        pair: whitened(cross, whitenings[pair[0]], whitenings[pair[1]])
        for pair, cross in sums.pairs.items()
    }
    scores = tuple(tuple(block_scores(matrix)) for matrix in white.values())
    return Derived(layers, scores, tuple(_matrices(sums, white, kinds)))


def _check_finite(sums: Sums) -> None:
    """Sums that overflowed would give NaN, and ranks of 0 that look like an answer."""
    parts = {f"layer {name}": moments for name, moments in sums.layers.items()}
    parts |= {f"layers {'-'.join(pair)}": moments for pair, moments in sums.pairs.items()}
    for name, moments in parts.items():
        values = (moments.mean_rows, moments.mean_columns, moments.scatter)
        if not all(np.isfinite(each).all() for each in values):
            raise AnalysisError(
                f"the responses of {name} overflow: their sums are not finite; expected weights and "
                "images whose responses a float holds"
            )


def _matrices(sums: Sums, white: dict[Pair, Array], kinds: Collection[Kind]) -> Iterator[Matrix]:
    for name, moments in sums.layers.items():
        if Kind.MEAN in kinds:
            yield Matrix(Kind.MEAN, (name,), moments.mean_rows[None])
        if Kind.CORRELATION in kinds:
            yield Matrix(Kind.CORRELATION, (name,), correlation(moments))
        if Kind.SCATTER in kinds:
            yield Matrix(Kind.SCATTER, (name,), moments.scatter)
    for pair, cross in sums.pairs.items():
        if Kind.COVARIANCE in kinds:
            yield Matrix(Kind.COVARIANCE, pair, covariance(cross))
        if Kind.WHITENED in kinds:
            yield Matrix(Kind.WHITENED, pair, white[pair])
        if Kind.CROSS_SCATTER in kinds:
            yield Matrix(Kind.CROSS_SCATTER, pair, cross.scatter)
