"""Nearest-neighbour up-sampling between maps of different size, without making the larger map.

Pixel p of n takes its value from pixel ``p * m // n`` of the m there are, along each axis (the rule of
PyTorch's ``nearest``, in whole numbers). So a pixel s of the smaller map stands for all pixels of the
larger whose source it is; there may be more of them for one s than for another when n is no multiple
of m. A sum over the larger map of products with the up-sampled one is a sum over the smaller map of
products with the larger one's sums: that is what :func:`pair_moments` uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.moments import Array, Moments

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True, slots=True)
class PairMoments:
    """Sums of two layers on the grid of the larger map: of each with itself, and of both."""

    first: Moments
    second: Moments
    cross: Moments


def sources(small: int, large: int) -> NDArray[np.intp]:
    """For each of ``large`` pixels, which of ``small`` pixels it takes its value from.

    Raises:
        AnalysisError: unless 0 < ``small`` <= ``large``.
    """
    if not 0 < small <= large:
        raise AnalysisError(f"cannot up-sample {small} pixels to {large}")
    return np.arange(large) * small // large


def repetition(size: Size, grid: Size) -> int:
    """How many pixels of ``grid`` each pixel of ``size`` stands for, when it is as many for each.

    Raises:
        AnalysisError: if ``grid`` is not a multiple of ``size``; names both.
    """
    if grid[0] % size[0] or grid[1] % size[1]:
        raise AnalysisError(
            f"maps of {_text(size)} and {_text(grid)} pixels have no grid in common; "
            "expected height and width of one to be multiples of those of the other"
        )
    return (grid[0] // size[0]) * (grid[1] // size[1])


def common_grid(first: Size, second: Size) -> Size:
    """The size of the larger map.

    Raises:
        AnalysisError: if neither is the larger one in both height and width.
    """
    grid = (max(first[0], second[0]), max(first[1], second[1]))
    if grid not in (first, second):
        raise AnalysisError(f"neither of maps of {_text(first)} and {_text(second)} is the larger")
    return grid


def pixel_sums(maps: Array, size: Size) -> Array:
    """Of maps [N, C, H, W], for each pixel of a map of ``size`` the sum over those it stands for."""
    for axis, small in ((2, size[0]), (3, size[1])):
        starts = np.flatnonzero(np.diff(sources(small, maps.shape[axis]), prepend=-1))
        maps = np.add.reduceat(maps, starts, axis=axis)
    return maps


def pair_moments(first: Array, second: Array) -> PairMoments:
    """Sums of two layers' maps [N, C1, H1, W1] and [N, C2, H2, W2], of any sizes.

    The smaller map is up-sampled algebraically; nothing as large as [N, C of the smaller, size of the
    larger] is ever made. One of the two has to be the larger in both height and width, or equal.

    Raises:
        AnalysisError: if the numbers of images differ, or neither map is the larger one.
    """
    if len(first) != len(second):
        raise AnalysisError(f"maps of {len(first)} and {len(second)} images came")
    grid = common_grid(first.shape[2:], second.shape[2:])
    if first.shape[2:] != grid:
        swapped = pair_moments(second, first)
        cross = swapped.cross
        turned = Moments(cross.samples, cross.mean_columns, cross.mean_rows, cross.scatter.T)
        return PairMoments(swapped.second, swapped.first, turned)
    large = Moments.of(_samples(first))
    size = second.shape[2:]
    counts = pixel_sums(np.ones((1, 1, *grid)), size)
    weights = np.broadcast_to(counts, (len(second), 1, *size)).reshape(-1, 1)
    small = _samples(second)
    total = len(first) * grid[0] * grid[1]
    if total == 0:
        return PairMoments(
            large,
            Moments.zero(small.shape[1], small.shape[1]),
            Moments.zero(large.scatter.shape[0], small.shape[1]),
        )
    mean = (weights * small).sum(axis=0) / total
    centred = small - mean
    sums = _samples(pixel_sums(first, size)) - weights * large.mean_rows
    return PairMoments(
        large,
        Moments(total, mean, mean, (weights * centred).T @ centred),
        Moments(total, large.mean_rows, mean, sums.T @ centred),
    )


def _samples(maps: Array) -> Array:
    """Maps [N, C, H, W] as samples [N x H x W, C]."""
    return maps.transpose(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
