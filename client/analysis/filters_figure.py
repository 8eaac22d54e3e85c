"""The filters of a convolution as tiles: Fig. 14 of the paper's appendix.

Filters that look at three channels are shown in colour, a tile for each. Of others each row of tiles is one
filter and each tile what it does to one input channel, from black (negative) to white (positive); filter
groups are blocks along the diagonal.
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
_LONGER_SIDE_IN = 6.5
_NOTHING = "#dce6f0"


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
    # A label for each line of groups, or without groups for each line of tiles.
    lines = bands if groups > 1 else grid.rows_per_group
    line_height = cell_height if groups > 1 else step - 1
    line_step = cell_height + gap if groups > 1 else step
    per_line = number // lines
    for line in range(lines):
        axes.text(
            -margin - 1.5,
            line * line_step + line_height / 2,
            f"{line * per_line}-{(line + 1) * per_line - 1}",
            ha="right",
            va="center",
            fontsize=7,
            color="#444444",
        )
    figure.suptitle(_title(filters), fontsize=10)
    figure.supxlabel(_colour_caption(groups, groups_of), fontsize=7, color="#444444")
    return figure


def _grey_figure(filters: Filters) -> Figure:
    layer, kernel = filters.layer, filters.layer.kernel
    canvas = _grey_canvas(filters)
    height, width = canvas.shape
    number, channels = layer.out_channels, layer.in_channels
    scale = _LONGER_SIDE_IN / max(height, width)
    # Not so thin that there is no room for its labels.
    size = (max(2.6, scale * width) + 1.7, max(1.6, scale * height) + 1.2)
    dpi = max(_DPI, math.ceil(max(height, width) / _LONGER_SIDE_IN))
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    axes = figure.subplots()
    top = float(np.percentile(np.abs(filters.weights), 99.5)) or 1.0
    image = axes.imshow(
        np.ma.masked_invalid(canvas),
        cmap="gray",
        vmin=-top,
        vmax=top,
        interpolation="nearest",
        extent=(0, channels, number, 0),
        # Tiles are square; single weights need not be.
        aspect="auto" if kernel == 1 else "equal",
    )
    axes.set_facecolor(_NOTHING)
    axes.set_xlabel(f"channels that {layer.name} looks at", fontsize=8)
    axes.set_ylabel(f"filters of {layer.name}", fontsize=8)
    axes.tick_params(labelsize=7, length=2)
    axes.locator_params(nbins=5, integer=True)
    bar = figure.colorbar(image, ax=axes, extend="both", aspect=24, fraction=0.06, pad=0.03)
    bar.set_label("weight", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(_title(filters), fontsize=10)
    if layer.groups > 1:
        words = f"blue: what the {layer.groups} filter groups leave out"
        figure.supxlabel(words, fontsize=7, color="#444444")
    return figure


def _grey_canvas(filters: Filters) -> NDArray[np.float64]:
    """Tiles of all filters by all channels, with NaN between them and outside of the filter groups."""
    layer, kernel = filters.layer, filters.layer.kernel
    step = kernel + 1 if kernel > 1 else 1
    tiles = np.full((layer.out_channels, step, layer.in_channels, step), np.nan)
    filters_of, channels_of = layer.out_channels // layer.groups, layer.in_channels // layer.groups
    for group in range(layer.groups):
        rows = slice(group * filters_of, (group + 1) * filters_of)
        columns = slice(group * channels_of, (group + 1) * channels_of)
        tiles[rows, :kernel, columns, :kernel] = filters.weights[rows].transpose(0, 2, 1, 3)
    return tiles.reshape(layer.out_channels * step, layer.in_channels * step)


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
