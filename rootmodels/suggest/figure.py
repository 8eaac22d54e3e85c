"""What each group of filters gets of each group of channels, contiguous and suggested, and what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rootmodels.suggest.energy import Array, Labels
from rootmodels.suggest.finding import WAYS, Finding
from rootmodels.suggest.grouping import Piece, contiguous
from rootmodels.suggest.study import Study

MOST_ROWS = 40
"""Convolutions that are drawn: the first ones."""

_COLOURS = {"suggested": "#1668b8", "contiguous": "#e0752d", "random": "#b0b5ba"}
_GRID = "#e2e5e8"
_SIDE_IN = 1.75
_DPI = 150


def draw(study: Study, findings: Sequence[Finding], path: Path) -> None:
    """A row for each convolution: two maps for each number of groups, and bars of the energy kept.

    A map tells how much of the energy of each group of filters each group of channels explains; filters in
    groups see that of their own number, on the diagonal.

    Raises:
        OSError: if the file cannot be written.
    """
    pieces = [p for p in study.pieces if any(p.name in each.kept for each in findings)][:MOST_ROWS]
    columns = 2 * len(findings) + 1
    size = (_SIDE_IN * columns + 0.6, 0.5 + (_SIDE_IN + 0.4) * len(pieces))
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    grid = figure.subplots(len(pieces), columns, squeeze=False)
    for axes, piece in zip(grid, pieces, strict=True):
        _row(list(axes), piece, findings)
    handles, labels = grid[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path)


def explained_by_group(piece: Piece, taken: Labels, made: Labels) -> Array:
    """[groups of filters, groups of channels]: the share of the filters' energy that the channels explain."""
    groups = range(int(taken.max()) + 1)
    explained = [piece.energy.explained(np.flatnonzero(taken == group)) for group in groups]
    own = np.array([piece.energy.variances[made == group].sum() for group in groups])
    found = np.array([[each[made == group].sum() for each in explained] for group in groups])
    shares: Array = found / np.maximum(own, 1e-30)[:, None]
    return shares


def _row(axes: list[Axes], piece: Piece, findings: Sequence[Finding]) -> None:
    axes[0].set_ylabel(f"{piece.name}\ngroups of filters", fontsize=8)
    for n, each in enumerate(findings):
        pair = axes[2 * n : 2 * n + 2]
        if piece.name not in each.kept:
            for axis in pair:
                axis.set_xticks([])
                axis.set_yticks([])
                axis.set_title(f"not in {each.degree}", fontsize=8)
            continue
        taken, made = each.grouping[piece.taken], each.grouping[piece.made]
        plain = [contiguous(len(labels), each.degree) for labels in (taken, made)]
        maps = [explained_by_group(piece, *plain), explained_by_group(piece, taken, made)]
        low, high = min(one.min() for one in maps), max(one.max() for one in maps)
        for axis, one, way in zip(pair, maps, ("contiguous", "suggested"), strict=True):
            axis.imshow(one, cmap="viridis", vmin=low, vmax=max(high, low + 1e-9))
            axis.set_title(f"{each.degree} {way}", fontsize=8)
            axis.set_xlabel("groups of channels", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
        pair[1].set_xlabel(f"{low:.0%} to {high:.0%}", fontsize=8)
    _bars(axes[-1], [each for each in findings if piece.name in each.kept], piece.name)


def _bars(axes: Axes, findings: Sequence[Finding], name: str) -> None:
    width = 0.84 / len(WAYS)
    for n, way in enumerate(WAYS):
        places = [column - 0.42 + width * (n + 0.5) for column in range(len(findings))]
        heights = [each.kept[name].fitted[way] * 100 for each in findings]
        axes.bar(places, heights, width=width, color=_COLOURS[way], label=way)
    axes.set_xticks(range(len(findings)), [str(each.degree) for each in findings], fontsize=7)
    axes.set_ylim(0, 100)
    axes.set_xlabel("groups", fontsize=8)
    axes.set_title("energy kept, %", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
