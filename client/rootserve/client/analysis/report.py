"""What the `analyze` commands print of an analysis: tables that fit 80 columns, or JSON."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from rootserve.client.analysis.files import scores_json
from rootserve.client.analysis.results import Analysis, Pair
from rootserve.client.analysis.service import Dataset
from rootserve.client.tables import figures_table
from rootserve.client.units import count, duration

_SHOWN_GROUPS = (2, 4, 8, 16, 32)
_LAYER_KEYS = ("name", "channels", "height", "width", "groups", "samples", "varying", "rank")


def print_pairs(screen: Console, analysis: Analysis, groups: int | None = None) -> None:
    """The pairs: ranks, the number of groups that fits best, and scores.

    Args:
        screen: Where.
        analysis: What was found.
        groups: Blocks to give the scores of instead of the network's own filter groups.
    """
    _print_heading(screen, analysis)
    table = figures_table(screen, "pair", "ranks", "best g", "g", "ratio", "energy")
    for pair in analysis.pairs:
        shown = groups or analysis.own_groups(pair)
        ranks = f"{analysis.layers[pair.first].rank}, {analysis.layers[pair.second].rank}"
        table.add_row(
            escape(pair.name), ranks, str(pair.best_groups), str(shown), *_cells(pair, shown)
        )
    screen.print(table)
    screen.print(
        "best g: groups that fit best, 1 if none stands out from chance; g: "
        + ("as asked for" if groups else "the network's own groups"),
        style="dim",
    )
    screen.print(
        "ratio: mean |whitened covariance| inside g blocks over outside; "
        "energy: share of its square inside",
        style="dim",
    )
    columns = [g for g in _SHOWN_GROUPS if any(g in pair.scores for pair in analysis.pairs)]
    if columns:
        screen.print()
        table = figures_table(screen, "ratio, energy", *(f"g = {g}" for g in columns))
        for pair in analysis.pairs:
            cells = ("  ".join(_cells(pair, g)) for g in columns)
            table.add_row(escape(pair.name), *cells)
        screen.print(table)
    _print_losses(screen, analysis)


def print_layers(screen: Console, analysis: Analysis) -> None:
    """The layers: channels, those that vary, rank."""
    _print_heading(screen, analysis)
    table = figures_table(screen, "layer", "map", "groups", "channels", "varying", "rank")
    for layer in analysis.layers.values():
        figures = (layer.groups, layer.channels, layer.varying, layer.rank)
        size = f"{layer.height}x{layer.width}"
        table.add_row(escape(layer.name), size, *(str(figure) for figure in figures))
    screen.print(table)


def print_datasets(screen: Console, datasets: Sequence[Dataset]) -> None:
    """Name and size of each data set."""
    if not datasets:
        screen.print("the server has no data sets", style="dim")
        return
    table = figures_table(screen, "data set", "images", "size")
    for each in datasets:
        table.add_row(escape(each.name), count(each.images), f"{each.height}x{each.width}")
    screen.print(table)


def to_json(analysis: Analysis) -> dict[str, Any]:
    """All figures but the matrices, ready for `json.dumps`; None stands for infinity."""
    scores = scores_json(analysis)
    return {
        "model": analysis.model,
        "weights_sha256": analysis.weights_sha256,
        "images": analysis.images,
        "before_relu": analysis.before_relu,
        "tolerance": analysis.tolerance,
        "elapsed_s": analysis.elapsed_s,
        "layers": [
            {key: getattr(layer, key) for key in _LAYER_KEYS} for layer in analysis.layers.values()
        ],
        "pairs": [
            {
                "pair": pair.name,
                "first": pair.first,
                "second": pair.second,
                "samples": pair.samples,
                "groups": analysis.own_groups(pair),
                "best_groups": pair.best_groups,
                "scores": scores[pair.name],
            }
            for pair in analysis.pairs
        ],
    }


def _cells(pair: Pair, groups: int) -> tuple[str, str]:
    score = pair.scores.get(groups)
    return (f"{score.ratio:.2f}", f"{score.energy:.0%}") if score else ("-", "-")


def _print_heading(screen: Console, analysis: Analysis) -> None:
    stage = "before" if analysis.before_relu else "after"
    took = f", {duration(analysis.elapsed_s)} {analysis.where}" if analysis.elapsed_s else ""
    screen.print(
        f"[bold]{escape(analysis.model)}[/], {count(analysis.images)} images, "
        f"responses {stage} ReLU{took}"
    )


def _print_losses(screen: Console, analysis: Analysis) -> None:
    """Layers that have less to whiten than they have channels."""
    for layer in analysis.layers.values():
        if layer.rank < layer.channels:
            constant = layer.channels - layer.varying
            never = f"; {constant} never vary" if constant else ""
            screen.print(
                f"{escape(layer.name)}: rank {layer.rank} of {layer.channels} channels{never}",
                style="yellow",
            )
