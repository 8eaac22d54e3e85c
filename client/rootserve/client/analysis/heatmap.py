"""One matrix between channels as a heat map: its colours, its scale, the blocks of filter groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rootserve.client.analysis.results import Matrix

# The colours of values are perceptually uniform; the other two are none of them.
_OUTLINE = "#5fd7ff"
_CONSTANT = "#8fa3ad"
COLOURS = colormaps["magma"].with_extremes(bad=_CONSTANT)
# The largest values are few and would make all others dark.
_CLIPPED_PERCENT = 0.5
_MAX_INTERVALS = 4
# More would run into one another.
_MOST_NAMES = 16


def palette_colours() -> bytes:
    """256 colours that a picture of heat maps can do with: red, green, blue of the first, ..."""
    colours = COLOURS(np.linspace(0, 1, 224))[:, :3]
    shades = np.linspace(0, 1, 30)[:, None].repeat(3, axis=1)
    others = [to_rgb(_OUTLINE), to_rgb(_CONSTANT)]
    parts = np.rint(255 * np.concatenate([colours, shades, others])).astype(np.uint8)
    return bytes(parts)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks to outline on the diagonal.

    Args:
        groups: How many; 1 for none.
        own: Whether they are the network's filter groups, or a grid to compare with (dashed).
    """

    groups: int = 1
    own: bool = True


NO_BLOCKS = Blocks()


class Names(NamedTuple):
    """What the channels at the axes are called, such as classes; without, they have numbers."""

    rows: Sequence[str] = ()
    columns: Sequence[str] = ()


NO_NAMES = Names()


@dataclass(frozen=True, slots=True)
class Scale:
    """What colours stand for, the same in all panels that share it: absolute values from 0 to `top`.

    Args:
        label: What is shown, for the colour bar.
        top: Value of the lightest colour.
        clipped: Whether some values lie above it.
    """

    label: str
    top: float
    clipped: bool

    @classmethod
    def fitting(cls, label: str, matrices: Sequence[Matrix], *, diagonal: bool = True) -> "Scale":
        """A scale for all these matrices, whose top all but the largest 0.5 % of the values reach.

        Args:
            label: What is shown.
            matrices: [channels, channels] each; NaN does not count.
            diagonal: Whether the values on the diagonal count.
        """
        values = np.concatenate([_counted(matrix, diagonal) for matrix in matrices])
        if not values.size or not values.max():
            return cls(label, 1.0, clipped=False)
        top = float(np.percentile(values, 100 - _CLIPPED_PERCENT)) or float(values.max())
        return cls(label, top, clipped=not diagonal or bool(values.max() > top))

    @classmethod
    def whole(cls, label: str, matrices: Sequence[Matrix]) -> "Scale":
        """A scale that ends at the largest of all values."""
        values = np.concatenate([_counted(matrix, diagonal=True) for matrix in matrices])
        return cls(label, float(values.max(initial=0.0)) or 1.0, clipped=False)

    @property
    def norm(self) -> Normalize:
        """From values to 0..1."""
        return Normalize(0.0, self.top)


def _counted(matrix: Matrix, diagonal: bool) -> Matrix:
    counted = ~np.isnan(matrix)
    if not diagonal:
        np.fill_diagonal(counted, val=False)
    return np.abs(matrix[counted])


def draw(
    axes: Axes,
    matrix: Matrix,
    scale: Scale,
    blocks: Blocks = NO_BLOCKS,
    *,
    numbers: bool = True,
    names: Names = NO_NAMES,
) -> None:
    """Draw the absolute values of a matrix, as a square.

    Args:
        axes: Where.
        matrix: [channels, channels]; rows run down, columns to the right; NaN is shown grey.
        scale: What the colours stand for.
        blocks: Outlined on the diagonal.
        numbers: Whether to number the channels at the axes.
        names: Stand in the place of numbers, if they are not too many to be read.
    """
    rows, columns = matrix.shape
    values = np.ma.masked_invalid(np.abs(matrix))
    # Fewer pixels than channels are smoothed alike in both directions when both have as many.
    values = values.repeat(math.ceil(columns / rows), 0).repeat(math.ceil(rows / columns), 1)
    axes.imshow(
        values,
        cmap=COLOURS,
        norm=scale.norm,
        aspect="auto",
        extent=(0, columns, rows, 0),
        # Where channels share a pixel, their values are averaged and not their colours.
        interpolation_stage="data",
    )
    axes.set_box_aspect(1)
    if blocks.groups > 1:
        axes.add_collection(_outlines(rows, columns, blocks))
    axes.set_xticks(_ticks(columns, blocks.groups) if numbers else [])
    axes.set_yticks(_ticks(rows, blocks.groups) if numbers else [])
    axes.tick_params(labelsize=7, length=2, width=0.5, pad=2)
    if 0 < len(names.rows) <= _MOST_NAMES:
        axes.set_yticks(np.arange(rows) + 0.5, names.rows)
    if 0 < len(names.columns) <= _MOST_NAMES:
        axes.set_xticks(np.arange(columns) + 0.5, names.columns, rotation=90)
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)


def colour_bar(
    figure: Figure,
    scale: Scale,
    panels: Sequence[Axes],
    *,
    below: bool = False,
    length: float = 1.0,
) -> None:
    """The legend of a scale: beside the panels that share it, and as long as this share of their height.

    Or below them, without words.
    """
    bar = figure.colorbar(
        ScalarMappable(scale.norm, COLOURS),
        ax=list(panels),
        extend="max" if scale.clipped else "neither",
        location="bottom" if below else "right",
        aspect=16 if below else 20 + 5 * len({axes.get_position().y0 for axes in panels}),
        shrink=length,
        fraction=0.05,
        pad=0.02,
    )
    if below:
        bar.locator = MaxNLocator(3)
        bar.update_ticks()
    else:
        bar.set_label(scale.label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _outlines(rows: int, columns: int, blocks: Blocks) -> LineCollection:
    height, width = rows / blocks.groups, columns / blocks.groups
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    boxes = [(unit + n) * (width, height) for n in range(blocks.groups)]
    style = "solid" if blocks.own else (0, (2, 2))
    return LineCollection(boxes, colors=_OUTLINE, linewidths=0.7, linestyles=[style])


def _ticks(channels: int, groups: int) -> list[int]:
    """A few channel numbers with the first and the last, on boundaries of groups if there are any."""
    unit = channels // groups if groups > 1 else 1
    parts = [n for n in range(1, _MAX_INTERVALS + 1) if channels % (n * unit) == 0]
    return [n * channels // max(parts) for n in range(max(parts) + 1)]
