"""Moments by the book, from samples that are all there: what the sums of an analysis are compared with."""

from __future__ import annotations

import numpy as np

from rootmodels.analysis.moments import Array, Moments


def moments_of(rows: Array, columns: Array | None = None) -> Moments:
    """Those of samples [N, R] and [N, C]; of ``rows`` with itself without ``columns``."""
    columns = rows if columns is None else columns
    if len(rows) == 0:
        return Moments.zero(rows.shape[1], columns.shape[1])
    mean_rows, mean_columns = rows.mean(axis=0), columns.mean(axis=0)
    scatter = (rows - mean_rows).T @ (columns - mean_columns)
    return Moments(len(rows), mean_rows, mean_columns, scatter)


def pair_moments(first: Array, second: Array) -> Moments:
    """Those of maps [N, C1, H1, W1] and [N, C2, H2, W2]; the smaller one is up-sampled."""
    height = max(first.shape[2], second.shape[2])
    width = max(first.shape[3], second.shape[3])
    return moments_of(*(_samples(maps, height, width) for maps in (first, second)))


def _samples(maps: Array, height: int, width: int) -> Array:
    """Maps [N, C, H, W] as samples [N x height x width, C]; both are multiples."""
    rows = np.repeat(maps, height // maps.shape[2], axis=2)
    return (
        np.repeat(rows, width // maps.shape[3], axis=3)
        .transpose(0, 2, 3, 1)
        .reshape(-1, maps.shape[1])
    )
