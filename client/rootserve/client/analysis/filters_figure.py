"""The filters of a convolution as tiles: Fig. 14 of the paper's appendix.

Filters that look at three channels are shown in colour, a tile for each. Of others it is shown how strongly
each filter looks at each channel, the darker the more; filter groups are blocks along the diagonal.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from rootserve.client.analysis.layers import Filters
from rootserve.client.units import count

_OUTLINE = "#1668b8"
_WORDS = "#444444"
_NOTHING = "#dce6f0"
_GROUND = 1.0
_DPI = 150
_TILES_ACROSS = 16
# More would run into one another.
_MOST_LABELS = 16
# A weight's side in a colour picture and how far that may give way to the picture's width, in inches.
_WEIGHT_IN = 0.042
_LARGEST_WEIGHT_IN = 0.09
_NARROWEST_IN = 4.2
_WIDEST_IN = 9.0
_LONGER_SIDE_IN = 6.5


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where tiles lie, in weights: each group is a block of tiles, and blocks stand in rows.

    Args:
        groups: How many blocks.
        across: Tiles in a row of a block.
        down: Tiles in a column of a block.
        beside: Blocks in a row.
        kernel: Side of a tile.
    """

    groups: int
    across: int
    down: int
    beside: int
    kernel: int

    @classmethod
    def of(cls, filters: int, groups: int, kernel: int) -> "_Grid":
        """For as many filters in as many groups: no wider than the page, and no row shorter than others."""
        per_group = filters // groups
        across = _largest_divisor(per_group, _TILES_ACROSS)
        # Short blocks of a single row stand side by side.
        beside = _largest_divisor(groups, _TILES_ACROSS // across) if across == per_group else 1
        return cls(groups, across, per_group // across, beside, kernel)

    @property
    def gap(self) -> int:
        """Between blocks."""
        return self.kernel // 2 + 2 if self.groups > 1 else 1

    @property
    def block(self) -> tuple[int, int]:
        """Width and height of a block."""
        return self.across * (self.kernel + 1) - 1, self.down * (self.kernel + 1) - 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of everything."""
        (width, height), rows = self.block, self.groups // self.beside
        return (
            self.beside * (width + self.gap) - self.gap,
            rows * (height + self.gap) - self.gap,
        )

    def corner(self, group: int) -> tuple[int, int]:
        """Left and top of a block."""
        row, column = divmod(group, self.beside)
        return column * (self.block[0] + self.gap), row * (self.block[1] + self.gap)

    def tile(self, index: int) -> tuple[int, int]:
        """Left and top of a tile."""
        group, inside = divmod(index, self.across * self.down)
        row, column = divmod(inside, self.across)
        left, top = self.corner(group)
        return left + column * (self.kernel + 1), top + row * (self.kernel + 1)

    def lines(self) -> Iterator[tuple[int, int, float]]:
        """First and last filter, and middle, of each row of blocks; of tiles where there is one block."""
        per_group = self.across * self.down
        per_line = self.beside * per_group if self.groups > 1 else self.across
        height = self.block[1] if self.groups > 1 else self.kernel
        for first in range(0, self.groups * per_group, per_line):
            yield first, first + per_line - 1, self.tile(first)[1] + height / 2


def _largest_divisor(number: int, limit: int) -> int:
    return max(n for n in range(1, max(1, min(number, limit)) + 1) if number % n == 0)


def filters_figure(
    filters: Filters, groups: int = 1, groups_of: str = "", *, labels: Sequence[str] = ()
) -> Figure:
    """All filters of the layer, ordered by channel.

    Args:
        filters: The weights.
        groups: Consecutive parts to mark; must divide the filters.
        groups_of: Whose filter groups these are, for the caption.
        labels: What the filters are called, such as classes; without, they have numbers.
    """
    if filters.weights.shape[1] == 3:
        return _colour_figure(filters, groups, groups_of)
    return _grey_figure(filters, labels)


def _colour_figure(filters: Filters, groups: int, groups_of: str) -> Figure:
    number, _, kernel, _ = filters.weights.shape
    grid = _Grid.of(number, groups, kernel)
    width, height = grid.size
    canvas = np.full((height, width, 3), _GROUND)
    for index in range(number):
        left, top = grid.tile(index)
        canvas[top : top + kernel, left : left + kernel] = _colours(filters.weights[index])
    scale = min(_LARGEST_WEIGHT_IN, _WIDEST_IN / width, max(_WEIGHT_IN, _NARROWEST_IN / width))
    figure = Figure(
        figsize=(scale * width + 1.5, scale * height + 1.0), dpi=_DPI, layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest", extent=(0, width, height, 0), aspect="equal")
    axes.set_axis_off()
    margin = grid.gap / 4
    axes.set_xlim(-margin - 0.5, width + margin + 0.5)
    axes.set_ylim(height + margin + 0.5, -margin - 0.5)
    for group in range(groups if groups > 1 else 0):
        left, top = grid.corner(group)
        sides = [side + 2 * margin for side in grid.block]
        box = Rectangle(
            (left - margin, top - margin), *sides, fill=False, edgecolor=_OUTLINE, linewidth=0.8
        )
        axes.add_patch(box)
    style: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 7, "color": _WORDS}
    for first, last, middle in grid.lines():
        axes.text(-margin - 1.5, middle, f"{first}-{last}", **style)
    figure.suptitle(_title(filters), fontsize=10)
    figure.supxlabel(_colour_caption(groups, groups_of), fontsize=7, color=_WORDS)
    return figure


def _grey_figure(filters: Filters, labels: Sequence[str]) -> Figure:
    layer = filters.layer
    strengths = _strengths(filters)
    rows, columns = strengths.shape
    scale = _LONGER_SIDE_IN / max(rows, columns)
    # Not so thin that there is no room for its labels.
    size = (max(2.6, scale * columns) + 1.7, max(1.6, scale * rows) + 1.2)
    dpi = max(_DPI, math.ceil(max(rows, columns) / _LONGER_SIDE_IN))
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        np.ma.masked_invalid(strengths),
        cmap="gray_r",
        vmin=0,
        # A few strong ones would make all others pale.
        vmax=float(np.nanpercentile(strengths, 99.5)) or 1.0,
        interpolation="nearest",
        extent=(0, columns, rows, 0),
        aspect="auto",
    )
    axes.set_facecolor(_NOTHING)
    axes.set_xlabel(f"channels that {layer.name} looks at", fontsize=8)
    axes.set_ylabel(f"filters of {layer.name}", fontsize=8)
    axes.tick_params(labelsize=7, length=2)
    axes.locator_params(nbins=5, integer=True)
    if 0 < len(labels) <= _MOST_LABELS:
        axes.set_yticks(np.arange(rows) + 0.5, labels)
    bar = figure.colorbar(image, ax=axes, extend="max", aspect=24, fraction=0.06, pad=0.03)
    kernel = f"norm of the {layer.kernel}x{layer.kernel} weights"
    bar.set_label(kernel if layer.kernel > 1 else "|weight|", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(_title(filters), fontsize=10)
    if layer.groups > 1:
        words = f"blue: what the {layer.groups} filter groups leave out"
        figure.supxlabel(words, fontsize=7, color=_WORDS)
    return figure


def _strengths(filters: Filters) -> NDArray[np.float64]:
    """[filters, channels]: the norm of what each filter does to each channel, NaN outside of its group."""
    layer = filters.layer
    norms = np.sqrt((filters.weights.astype(np.float64) ** 2).sum(axis=(2, 3)))
    own_filters, own_channels = layer.out_channels // layer.groups, norms.shape[1]
    strengths = np.full((layer.out_channels, layer.in_channels), np.nan)
    for group in range(layer.groups):
        rows = slice(group * own_filters, (group + 1) * own_filters)
        strengths[rows, group * own_channels : (group + 1) * own_channels] = norms[rows]
    return strengths


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
