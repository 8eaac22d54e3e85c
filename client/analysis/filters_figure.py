"""The filters of a convolution as tiles: Fig. 14 of the paper's appendix.

Filters that look at three channels are shown in colour, a tile for each. Of others each row of tiles is one
filter and each tile what it does to one input channel, from black (negative) to white (positive).
"""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from client.analysis.layers import Filters
from client.units import count

_OUTLINE = "#1668b8"
_GROUND = 1.0
_DPI = 150
_PIXEL_IN = 0.042
"""A weight's size in a colour picture of large kernels, in inches."""
_TILES_ACROSS = 16
_WIDEST_IN = 9.0


@dataclass(frozen=True, slots=True)
class _Grid:
    """How tiles are laid out: the filters of each group in rows of ``columns`` tiles."""

    groups: int
    per_group: int
    columns: int

    @classmethod
    def of(cls, filters: int, groups: int) -> "_Grid":
        """For as many filters in as many groups."""
        per_group = filters // groups
        # Rows of one length: the largest divisor that still fits the page.
        columns = max(n for n in range(1, min(per_group, _TILES_ACROSS) + 1) if per_group % n == 0)
        return cls(groups, per_group, columns)

    @property
    def rows_per_group(self) -> int:
        """Rows of tiles of each group."""
        return self.per_group // self.columns


def filters_figure(filters: Filters, groups: int = 1, groups_of: str = "") -> Figure:
    """All filters of the layer, ordered by channel.

    Args:
        filters: The weights.
        groups: Consecutive parts to mark; must divide the filters.
        groups_of: Whose filter groups these are, for the caption.
    """
    if filters.weights.shape[1] == 3:
        return _colour_figure(filters, groups, groups_of)
    return _grey_figure(filters)


def _colour_figure(filters: Filters, groups: int, groups_of: str) -> Figure:
    number, _, kernel, _ = filters.weights.shape
    grid = _Grid.of(number, groups)
    step = kernel + 1
    # Groups of a single short row stand side by side, as many as make the picture wide enough.
    beside = 1
    if grid.rows_per_group == 1:
        fitting = [
            n for n in range(1, groups + 1) if groups % n == 0 and n * grid.columns <= _TILES_ACROSS
        ]
        beside = max(fitting)
    gap = kernel // 2 + 2 if groups > 1 else 0
    cell_width, cell_height = grid.columns * step - 1, grid.rows_per_group * step - 1
    bands = groups // beside
    width = beside * cell_width + (beside - 1) * gap
    height = bands * cell_height + (bands - 1) * gap
    canvas = np.full((height, width, 3), _GROUND)
    corners = []
    for index in range(number):
        group, inside = divmod(index, grid.per_group)
        band, place = divmod(group, beside)
        row, column = divmod(inside, grid.columns)
        top = band * (cell_height + gap) + row * step
        left = place * (cell_width + gap) + column * step
        canvas[top : top + kernel, left : left + kernel] = _colours(filters.weights[index])
        if inside == 0:
            corners.append((left, top))
    pixel = min(max(_PIXEL_IN, 4.2 / width), _WIDEST_IN / width, 0.09)
    figure = Figure(
        figsize=(pixel * width + 1.5, pixel * height + 1.0), dpi=_DPI, layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest", extent=(0, width, height, 0), aspect="equal")
    axes.set_axis_off()
    margin = gap / 4
    if groups > 1:
        for left, top in corners:
            axes.add_patch(
                Rectangle(
                    (left - margin, top - margin),
                    cell_width + 2 * margin,
                    cell_height + 2 * margin,
                    fill=False,
                    edgecolor=_OUTLINE,
                    linewidth=0.8,
                )
            )
    axes.set_xlim(-margin - 0.5, width + margin + 0.5)
    axes.set_ylim(height + margin + 0.5, -margin - 0.5)
    for band in range(bands):
        first = band * beside * grid.per_group
        last = first + beside * grid.per_group - 1
        middle = band * (cell_height + gap) + cell_height / 2
        axes.text(
            -margin - 1.5,
            middle,
            f"{first}-{last}",
            ha="right",
            va="center",
            fontsize=7,
            color="#444444",
        )
    figure.suptitle(_title(filters), fontsize=10)
    figure.supxlabel(_colour_caption(groups, groups_of), fontsize=7, color="#444444")
    return figure


def _grey_figure(filters: Filters) -> Figure:
    number, channels, kernel, _ = filters.weights.shape
    step = kernel + 1 if kernel > 1 else 1
    canvas = np.full((number * step, channels * step), np.nan)
    tiles = canvas.reshape(number, step, channels, step)
    tiles[:, :kernel, :, :kernel] = filters.weights.transpose(0, 2, 1, 3)
    top = float(np.percentile(np.abs(filters.weights), 99.5)) or 1.0
    height, width = canvas.shape
    scale = 6.5 / max(height, width)
    # Not so thin that there is no room for its labels.
    size = (max(3.2, scale * width) + 1.6, max(2.4, scale * height) + 1.1)
    dpi = max(_DPI, math.ceil(max(height, width) / 6.5))
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        np.ma.masked_invalid(canvas),
        cmap="gray",
        vmin=-top,
        vmax=top,
        interpolation="nearest",
        extent=(0, channels, number, 0),
        aspect=(height / number) / (width / channels),
    )
    axes.set_facecolor("white")
    layer = filters.layer
    groups = layer.groups
    if groups > 1:
        axes.hlines(
            np.arange(1, groups) * number / groups, 0, channels, color=_OUTLINE, linewidth=0.6
        )
    within = " within its group" if groups > 1 else ""
    axes.set_xlabel(f"input channel{within}", fontsize=8)
    axes.set_ylabel("filter", fontsize=8)
    axes.tick_params(labelsize=7, length=2)
    axes.locator_params(nbins=6, integer=True)
    bar = figure.colorbar(image, ax=axes, extend="both", aspect=30, fraction=0.05, pad=0.02)
    bar.set_label("weight", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(_title(filters), fontsize=10)
    if groups > 1:
        figure.supxlabel(
            f"blue lines: between the {groups} filter groups", fontsize=7, color="#444444"
        )
    return figure


def _colours(weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """One filter [3, k, k] as [k, k, 3] in 0..1: grey is 0, and its largest weight is as far as it goes."""
    largest = float(np.abs(weight).max()) or 1.0
    shown: NDArray[np.float64] = 0.5 + 0.5 * weight.astype(np.float64).transpose(1, 2, 0) / largest
    return shown


def _title(filters: Filters) -> str:
    layer = filters.layer
    trained = "" if filters.weights_sha256 else ", untrained"
    return (
        f"{filters.model}{trained}: {count(layer.out_channels)} filters of {layer.name}, "
        f"{layer.kernel}x{layer.kernel}x{filters.weights.shape[1]}"
    )


def _colour_caption(groups: int, groups_of: str) -> str:
    scale = "grey is 0; each filter is scaled to its own largest weight"
    if groups == 1:
        return f"numbers: channels; {scale}"
    return f"numbers: channels; outlined: the {groups} groups of {groups_of}\n{scale}"
