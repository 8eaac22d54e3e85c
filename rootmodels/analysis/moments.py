"""Sums that are all a covariance needs: number of samples, means, scatter matrix; mergeable.

Merging is the pairwise update of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm
for computing sample variances", 1979), in float64: no large numbers cancel, and the order of merging
changes the result by rounding alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rootmodels.analysis.errors import AnalysisError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Joint sums of two sets of channels over the same samples; of one set when both are the same.

    ``mean_rows`` is [R], ``mean_columns`` [C], ``scatter`` [R, C]: the sum over all samples of
    ``(x_rows - mean_rows) (x_columns - mean_columns)^T``.
    """

    samples: int
    mean_rows: Array
    mean_columns: Array
    scatter: Array

    @classmethod
    def zero(cls, rows: int, columns: int) -> Moments:
        """Those of no samples: merging with them changes nothing."""
        return cls(0, np.zeros(rows), np.zeros(columns), np.zeros((rows, columns)))

    @classmethod
    def from_shifted(
        cls,
        samples: int,
        shifts: tuple[Array, Array],
        sums: tuple[Array, Array],
        products: Array,
    ) -> Moments:
        """Those of ``samples`` > 0 of which ``shifts`` were subtracted before they were summed.

        Args:
            samples: How many.
            shifts: What was subtracted, [R] and [C]; anything near the means.
            sums: Sums of the shifted samples, [R] and [C].
            products: Sum of the shifted samples' products, [R, C].
        """
        (shift_rows, shift_columns), (sum_rows, sum_columns) = shifts, sums
        return cls(
            samples,
            shift_rows + sum_rows / samples,
            shift_columns + sum_columns / samples,
            products - np.outer(sum_rows, sum_columns / samples),
        )

    def merge(self, other: Moments) -> Moments:
        """Those of both sets of samples.

        Raises:
            AnalysisError: if their channels differ in number.
        """
        if self.scatter.shape != other.scatter.shape:
            raise AnalysisError(
                f"sums of {self.scatter.shape} and {other.scatter.shape} channels do not merge"
            )
        if self.samples == 0:
            return other
        if other.samples == 0:
            return self
        samples = self.samples + other.samples
        share = other.samples / samples
        step_rows = other.mean_rows - self.mean_rows
        step_columns = other.mean_columns - self.mean_columns
        between = np.outer(step_rows * (self.samples * share), step_columns)
        return Moments(
            samples,
            self.mean_rows + step_rows * share,
            self.mean_columns + step_columns * share,
            self.scatter + other.scatter + between,
        )


def merge_all(parts: Sequence[Moments]) -> Moments:
    """All ``parts``, at least one, merged two by two, so that rounding grows with their logarithm."""
    while len(parts) > 1:
        merged = [a.merge(b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = merged + list(parts[len(merged) * 2 :])
    return parts[0]
