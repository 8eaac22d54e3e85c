"""Which channels feed which filters, as they are and group by group, and what of the energy is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rootmodels.suggest.energy import Array
from rootmodels.suggest.finding import WAYS, Finding
from rootmodels.suggest.grouping import Piece
from rootmodels.suggest.rewrite import orders_of
from rootmodels.suggest.study import Study

MOST_ROWS = 40
"""Convolutions that are drawn: the first ones."""

_COLOURS = {"suggested": "#1668b8", "contiguous": "#e0752d", "random": "#b0b5ba"}
_OUTLINE = "#e0752d"
_GRID = "#e2e5e8"
_SIDE_IN = 2.3
_DPI = 150


def draw(study: Study, findings: Sequence[Finding], path: Path) -> None:
    """A row for each convolution: the energies between channels and filters, and bars of what is kept.

    Raises:
        OSError: if the file cannot be written.
    """
    pieces = [p for p in study.pieces if any(p.name in each.kept for each in findings)][:MOST_ROWS]
    columns = len(findings) + 2
    size = (_SIDE_IN * columns, 0.5 + _SIDE_IN * len(pieces))
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    grid = figure.subplots(len(pieces), columns, squeeze=False)
    for axes, piece in zip(grid, pieces, strict=True):
        _row(list(axes), piece, findings)
    handles, labels = grid[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path)


def _row(axes: list[Axes], piece: Piece, findings: Sequence[Finding]) -> None:
    energies = np.sqrt(piece.energy.solo())
    # All but the largest half a percent tell shades apart: one strong filter would make the others black.
    top = float(np.quantile(energies, 0.995)) or 1.0
    _panel(axes[0], energies, top, "as they are")
    axes[0].set_ylabel(f"{piece.name}: filters", fontsize=8)
    for axis, each in zip(axes[1:], findings, strict=False):
        if piece.name not in each.kept:
            axis.set_axis_off()
            axis.set_title(f"not in {each.degree} groups", fontsize=8)
            continue
        orders = orders_of(each.grouping)
        made, taken = orders[piece.made], orders[piece.taken]
        _panel(axis, energies[np.ix_(made, taken)], top, f"{each.degree} groups")
        height, width = len(made) / each.degree, len(taken) / each.degree
        for group in range(each.degree):
            corner = (group * width - 0.5, group * height - 0.5)
            axis.add_patch(
                Rectangle(corner, width, height, fill=False, edgecolor=_OUTLINE, linewidth=0.7)
            )
    _bars(axes[-1], [each for each in findings if piece.name in each.kept], piece.name)


def _panel(axes: Axes, energies: Array, top: float, title: str) -> None:
    axes.imshow(energies, cmap="viridis", vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.set_xlabel("channels taken", fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])


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
