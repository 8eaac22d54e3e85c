"""What each layer costs without filter groups and with them, as bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rootmodels.cost import LayerCost, layer_cost
from rootmodels.layer import Layer
from rootmodels.model import Model
from rootmodels.roots import Rooted

_ORIGINAL = "#b0b5ba"
_COLOURS = ("#1668b8", "#e0752d", "#3a9a5b", "#a0529c", "#c9a227", "#4db3c8")
_GRID = "#e2e5e8"
_BAR_IN = 0.085
_DPI = 150
_LARGEST_IN = 300.0
"""What a picture may be high: matplotlib draws up to 65,536 dots."""


def draw_costs(model: Model, variants: Sequence[Rooted], path: Path) -> None:
    """Multiply-accumulates and parameters of each layer with weights, in ``model`` and in each variant.

    Raises:
        OSError: if the file cannot be written.
    """
    networks: list[tuple[str, str, Sequence[Layer]]] = [(model.name, _ORIGINAL, model.layers)]
    for n, each in enumerate(variants):
        title = each.title
        networks.append((title, _COLOURS[n % len(_COLOURS)], each.layers))
    names = [layer.name for layer in model.layers if layer.has_weights]
    rows = len(names) * max(len(networks) + 1, 3)
    size = (9.0, min(1.4 + _BAR_IN * rows, _LARGEST_IN))
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, "multiply-accumulates, millions", names, networks, lambda one: one.macs / 1e6)
    _panel(right, "parameters, thousands", names, networks, lambda one: one.params / 1e3)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    figure.savefig(path)


def _panel(
    axes: Axes,
    label: str,
    names: Sequence[str],
    networks: Sequence[tuple[str, str, Sequence[Layer]]],
    value: Callable[[LayerCost], float],
) -> None:
    height = 0.84 / len(networks)
    for n, (title, colour, layers) in enumerate(networks):
        costs = [value(layer_cost(layer)) for layer in layers if layer.has_weights]
        places = [row - 0.42 + height * (n + 0.5) for row in range(len(names))]
        axes.barh(places, costs, height=height, color=colour, label=title)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
