"""From sums to covariance, correlation and whitened covariance ("Deep Roots", appendix A.2, eq. 1-9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.moments import Array, Moments

DEFAULT_TOLERANCE = 1e-6
"""Eigenvalues up to this share of the largest one count as zero: responses are computed in float32."""

_CONSTANT = 1e-10
"""A channel whose standard deviation is up to this share of its mean is constant but for rounding."""


@dataclass(frozen=True, slots=True)
class Whitening:
    """A ZCA whitening: ``matrix`` [C, C], symmetric, and how many dimensions it keeps."""

    matrix: Array
    rank: int


def covariance(moments: Moments) -> Array:
    """Covariance [R, C], eq. 2: the scatter matrix over N - 1.

    Raises:
        AnalysisError: with fewer than two samples.
    """
    if moments.samples < 2:
        raise AnalysisError(f"{moments.samples} samples came, a covariance needs 2 or more")
    return moments.scatter / (moments.samples - 1)


def varying(moments: Moments) -> NDArray[np.bool_]:
    """Which channels of one layer's ``moments`` are not constant, [C]. A dead channel is constant."""
    rounding = np.square(_CONSTANT * moments.mean_rows) * moments.samples
    result: NDArray[np.bool_] = np.diagonal(moments.scatter) > rounding
    return result


def correlation(moments: Moments) -> Array:
    """Pearson correlation of one layer's channels, [C, C].

    A constant channel has no correlation: its row and column, diagonal included, are 0.

    Raises:
        AnalysisError: with fewer than two samples.
    """
    cov = covariance(moments)
    kept = varying(moments)
    deviation = np.sqrt(np.where(kept, np.diagonal(cov), 1.0))
    result: Array = np.clip(cov / deviation[:, None] / deviation, -1.0, 1.0)
    result[~kept] = 0.0
    result[:, ~kept] = 0.0
    np.fill_diagonal(result, np.where(kept, 1.0, 0.0))
    return result


def whitening(moments: Moments, tolerance: float = DEFAULT_TOLERANCE) -> Whitening:
    """The ZCA whitening of one layer, eq. 8: P D^(-1/2) P^T, D and P from the covariance's eigenvalues.

    Eigenvalues up to ``tolerance`` times the largest one, and those of constant channels, are taken as
    zero and left out (a pseudo-inverse), so that dead and dependent channels do no harm. What is left is
    the support; on it the whitened covariance is the identity.

    Raises:
        AnalysisError: with fewer than two samples, or unless 0 <= ``tolerance`` < 1.
    """
    if not 0 <= tolerance < 1:
        raise AnalysisError(f"tolerance {tolerance:g} came, expected 0 or more and below 1")
    cov = covariance(moments)
    kept = np.flatnonzero(varying(moments))
    matrix = np.zeros_like(cov)
    if not len(kept):
        return Whitening(matrix, 0)
    values, vectors = np.linalg.eigh(cov[np.ix_(kept, kept)])
    # Even with tolerance 0, what rounding alone gives is no dimension.
    floor = max(tolerance, len(kept) * np.finfo(np.float64).eps) * values[-1]
    support = values > floor
    basis = vectors[:, support]
    matrix[np.ix_(kept, kept)] = (basis / np.sqrt(values[support])) @ basis.T
    return Whitening(matrix, int(support.sum()))


def whitened(cross: Moments, first: Whitening, second: Whitening) -> Array:
    """Covariance of the whitened responses [R, C], eq. 9: cov(W1 X1, W2 X2) = W1 cov(X1, X2) W2^T.

    Raises:
        AnalysisError: with fewer than two samples.
    """
    return first.matrix @ covariance(cross) @ second.matrix.T
