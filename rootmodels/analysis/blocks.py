"""How block-diagonal a matrix is, as g filter groups would make it, and which g fits best.

Block i of g joins the i-th g-th of the rows with the i-th g-th of the columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.moments import Array

SIGNIFICANT_DEVIATIONS = 5.0
"""A number of groups with fewer standard deviations than this does not stand out from chance."""


@dataclass(frozen=True, slots=True)
class BlockScore:
    """How much of a matrix lies in its g diagonal blocks.

    ``ratio`` is the mean |value| inside over the mean outside: about 1 without structure, infinity with
    nothing outside, 1 with nothing at all. ``energy`` is the share of the squared values inside: about
    1/g without structure. ``fit`` is the correlation of |value| with being inside: 1 for constant blocks
    and nothing else, and highest for the right g. ``deviations`` is by how many standard deviations the
    mean inside exceeds that of the same matrix with its columns in random order.
    """

    groups: int
    ratio: float
    energy: float
    fit: float
    deviations: float


def candidate_groups(rows: int, columns: int) -> list[int]:
    """The numbers of groups from 2 on that divide both, ascending."""
    common = math.gcd(rows, columns)
    return [groups for groups in range(2, common + 1) if common % groups == 0]


def block_score(matrix: Array, groups: int) -> BlockScore:
    """The score of ``matrix`` [R, C] for ``groups`` > 1.

    Raises:
        AnalysisError: if ``groups`` does not divide both rows and columns, or is below 2.
    """
    rows, columns = matrix.shape
    if groups < 2 or rows % groups or columns % groups:
        raise AnalysisError(
            f"{groups} groups came for {rows}x{columns} channels, expected a common divisor from 2 on"
        )
    size = np.abs(matrix)
    inside = np.kron(np.eye(groups, dtype=bool), np.ones((rows // groups, columns // groups), bool))
    within, without = size[inside].mean(), size[~inside].mean()
    squares = np.square(size)
    total = squares.sum()
    return BlockScore(
        groups=groups,
        ratio=_ratio(float(within), float(without)),
        energy=float(squares[inside].sum() / total) if total > 0 else 1 / groups,
        fit=_fit(float(within - without), float(size.std()), groups),
        deviations=_deviations(size, groups),
    )


def block_scores(matrix: Array) -> list[BlockScore]:
    """The score for every number of groups that is possible, ascending; none where there is none."""
    return [block_score(matrix, groups) for groups in candidate_groups(*matrix.shape)]


def rank_groups(scores: list[BlockScore]) -> list[int]:
    """The numbers of groups that stand out from chance, the best fit first; empty if none does."""
    standing = [score for score in scores if score.deviations >= SIGNIFICANT_DEVIATIONS]
    return [score.groups for score in sorted(standing, key=lambda score: -score.fit)]


def best_groups(scores: list[BlockScore]) -> int:
    """The number of groups that fits best; 1 if none stands out from chance."""
    return next(iter(rank_groups(scores)), 1)


def _ratio(within: float, without: float) -> float:
    if without > 0:
        return within / without
    return math.inf if within > 0 else 1.0


def _fit(difference: float, deviation: float, groups: int) -> float:
    """The point-biserial correlation: a share 1/g of all elements is inside."""
    share = 1 / groups
    return difference / deviation * math.sqrt(share * (1 - share)) if deviation > 0 else 0.0


def _deviations(size: Array, groups: int) -> float:
    """How unusual the sum inside is among those of all orders of the columns.

    The sum is that of c[j, k], what column j has inside when it stands at place k. Over all permutations
    its mean and variance are known exactly (Hoeffding, "A combinatorial central limit theorem", 1951).
    Strong and weak channels make no structure by themselves, as they would for a plain standard error.
    """
    rows, columns = size.shape
    if columns < 2:
        return 0.0
    width = columns // groups
    # Places of one block are alike: [columns, groups] instead of [columns, columns].
    gain = size.reshape(groups, rows // groups, columns).sum(axis=1).T
    total = gain[np.arange(columns), np.arange(columns) // width].sum()
    grand = gain.mean()
    centred = gain - gain.mean(axis=1, keepdims=True) - gain.mean(axis=0) + grand
    variance = np.square(centred).sum() * width / (columns - 1)
    # Rounding alone is no variance.
    if variance <= (1e-12 * columns * grand) ** 2:
        return 0.0
    return float((total - columns * grand) / math.sqrt(variance))
