"""The paper's covariance figures, drawn from results: Figs. 10, 11, 12 and 13 of the appendix."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rootserve.client.analysis import saving
from rootserve.client.analysis.heatmap import (
    Blocks,
    Names,
    Scale,
    colour_bar,
    draw,
    palette_colours,
)
from rootserve.client.analysis.results import Analysis, Layer, Matrix, Pair
from rootserve.client.analysis.style import Style
from rootserve.client.units import count

_COVARIANCE = "|covariance|"
_WHITENED = "|covariance of whitened responses|"
_CORRELATION = "|correlation|"
_TITLE_SIZE = 8
_DPI = 100
# Blocks that means are taken of where a network has no groups.
_MOST_MEANS = 16


def pair_figure(analysis: Analysis, pair: Pair, groups: int | None = None) -> Figure:
    """One pair, plain and whitened side by side, each with its own scale: as Fig. 10 a and b.

    Args:
        analysis: What the pair belongs to.
        pair: With both matrices.
        groups: Blocks to outline instead of the second layer's own filter groups.
    """
    blocks = _blocks(analysis, pair, groups)
    matrices = [_shown(analysis, pair, matrix) for matrix in (pair.covariance, pair.whitened)]
    titles = ("covariance", f"covariance of whitened responses: {_score_words(pair, blocks)}")
    figure = _figure(9.4, 4.6, f"{analysis.model}, {pair.first} and {pair.second}", analysis)
    panels = figure.subplots(1, 2)
    for axes, matrix, label, title in zip(
        panels, matrices, (_COVARIANCE, _WHITENED), titles, strict=True
    ):
        scale = Scale.fitting(label, [matrix])
        draw(axes, matrix, scale, blocks, names=_names(analysis, pair))
        axes.set_title(title, fontsize=_TITLE_SIZE)
        axes.set_xlabel(f"channels of {pair.second}", fontsize=_TITLE_SIZE)
        axes.set_ylabel(f"channels of {pair.first}", fontsize=_TITLE_SIZE)
        colour_bar(figure, scale, [axes])
    _add_key(figure, [blocks], matrices)
    return figure


def pairs_figure(
    analysis: Analysis, groups: int | None = None, *, own_scales: bool = False
) -> Figure:
    """Whitened covariance of all pairs of one network, and beside each its means: a part of Fig. 13."""
    pairs = analysis.pairs
    across = 2 if len(pairs) > 1 else 1
    down = -(-len(pairs) // across)
    title = f"{analysis.model}, adjacent layers"
    figure = _figure(1.2 + 5.0 * across, 0.9 + 2.75 * down, title, analysis)
    panels = figure.subplots(down, 2 * across, squeeze=False)
    places = panels.reshape(-1, 2)
    matrices = [_shown(analysis, pair, pair.whitened) for pair in pairs]
    blocks = [_blocks(analysis, pair, groups) for pair in pairs]
    means = [_means(matrix, each) for matrix, each in zip(matrices, blocks, strict=True)]
    scales = _scales(matrices, means, own=own_scales)
    for place, pair, matrix, mean, each, own in zip(
        places, pairs, matrices, means, blocks, scales, strict=False
    ):
        names = _names(analysis, pair)
        draw(place[0], matrix, own[0], each, names=names)
        place[0].set_title(
            f"{pair.first} and {pair.second}\n{_score_words(pair, each)}", fontsize=_TITLE_SIZE
        )
        draw(place[1], mean, own[1], numbers=False, names=Names(columns=names.columns))
        place[1].set_title("\nmeans of its blocks", fontsize=_TITLE_SIZE)
        if own_scales:
            for axes, scale in zip(place, own, strict=True):
                colour_bar(figure, scale, [axes], length=0.8)
    for place in places[len(pairs) :]:
        for axes in place:
            axes.set_axis_off()
    if not own_scales:
        # The first one is the outermost.
        for scale in scales[0][::-1]:
            colour_bar(figure, scale, list(panels.flat))
    _add_key(figure, blocks, matrices)
    return figure


def correlation_figure(analysis: Analysis) -> Figure:
    """Correlation within each layer: as Fig. 11. The diagonal is 1, and off the scale."""
    layers = list(analysis.layers.values())
    matrices = [_hide(layer.correlation, layer, layer) for layer in layers]
    blocks = [Blocks(layer.groups) for layer in layers]
    scale = Scale.fitting(_CORRELATION, matrices, diagonal=False)
    # As few places empty as can be.
    columns = min(len(layers), 4 if -len(layers) % 4 <= -len(layers) % 3 else 3)
    rows = -(-len(layers) // columns)
    title = f"{analysis.model}, within layers"
    figure = _figure(1.2 + 2.5 * columns, 0.7 + 2.75 * rows, title, analysis)
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, layer, matrix, each in zip(panels, layers, matrices, blocks, strict=False):
        draw(axes, matrix, scale, each, names=Names(layer.labels, layer.labels))
        axes.set_title(_layer_words(layer), fontsize=_TITLE_SIZE)
    for axes in panels[len(layers) :]:
        axes.set_axis_off()
    colour_bar(figure, scale, panels)
    _add_key(figure, blocks, matrices)
    return figure


def pair_of_networks_figure(analyses: Sequence[Analysis], name: str) -> Figure:
    """One pair in several networks, as Fig. 12, and below each its mean over each block.

    A network without filter groups there is shown on the finest grid of the others.

    Args:
        analyses: Of the networks, each with that pair.
        name: Of the pair, such as "conv1c-conv2a".
    """
    pairs = [next(pair for pair in each.pairs if pair.name == name) for each in analyses]
    blocks = _comparable_blocks(analyses, pairs)
    matrices = [
        _shown(each, pair, pair.whitened) for each, pair in zip(analyses, pairs, strict=True)
    ]
    means = [
        _block_means(matrix, each.groups) for matrix, each in zip(matrices, blocks, strict=True)
    ]
    first, second = pairs[0].first, pairs[0].second
    figure = _figure(1.4 + 2.3 * len(pairs), 5.7, f"{first} and {second}", analyses[0])
    panels = figure.subplots(2, len(pairs), squeeze=False)
    scales = Scale.fitting(_WHITENED, matrices), Scale.whole(f"mean {_WHITENED}", means)
    for (above, below), analysis, pair, matrix, mean, each in zip(
        panels.T, analyses, pairs, matrices, means, blocks, strict=True
    ):
        draw(above, matrix, scales[0], each)
        draw(below, mean, scales[1])
        above.set_title(f"{analysis.model}\n{_score_words(pair, each)}", fontsize=_TITLE_SIZE)
        above.set_xlabel(f"channels of {second}", fontsize=_TITLE_SIZE)
        below.set_xlabel(f"blocks of {second}", fontsize=_TITLE_SIZE)
    panels[0, 0].set_ylabel(f"channels of {first}", fontsize=_TITLE_SIZE)
    panels[1, 0].set_ylabel(f"blocks of {first}", fontsize=_TITLE_SIZE)
    for scale, row in zip(scales, panels, strict=True):
        colour_bar(figure, scale, list(row))
    _add_key(figure, blocks, matrices)
    return figure


def networks_figure(analyses: Sequence[Analysis], *, own_scales: bool = False) -> Figure:
    """All pairs of several networks, a row each, and below it the means over blocks: as Fig. 13.

    Args:
        analyses: Of the networks, all with the same pairs.
        own_scales: Whether each pair has a colour scale of its own, the same in all networks.
    """
    # One column of the figure after the other: the same pair in all networks.
    columns = list(zip(*(each.pairs for each in analyses), strict=True))
    blocks = [_comparable_blocks(analyses, pairs) for pairs in columns]
    matrices = [
        [_shown(each, pair, pair.whitened) for each, pair in zip(analyses, pairs, strict=True)]
        for pairs in columns
    ]
    means = [
        [_means(matrix, each) for matrix, each in zip(*column, strict=True)]
        for column in zip(matrices, blocks, strict=True)
    ]
    every_matrix = list(chain.from_iterable(matrices))
    shared = _scales(every_matrix, list(chain.from_iterable(means)), own=False)[0]
    figure = _figure(
        1.5 + 1.55 * len(columns), 1.1 + 3.2 * len(analyses), "adjacent layers", analyses[0]
    )
    panels = figure.subplots(2 * len(analyses), len(columns), squeeze=False)
    for column, panel, outlined, whole, mean_of in zip(
        columns, panels.T, blocks, matrices, means, strict=True
    ):
        scales = _scales(whole, mean_of, own=False)[0] if own_scales else shared
        for above, below, pair, each, matrix, mean in zip(
            panel[::2], panel[1::2], column, outlined, whole, mean_of, strict=True
        ):
            draw(above, matrix, scales[0], each, numbers=False)
            draw(below, mean, scales[1], numbers=False)
            if each.groups > 1:
                above.set_title(_score_words(pair, each), fontsize=7, pad=3)
        last = _names(analyses[-1], column[-1])
        draw(panel[-1], mean_of[-1], scales[1], numbers=False, names=last)
        panel[-1].set_xlabel(f"{column[0].first}\nand {column[0].second}", fontsize=_TITLE_SIZE)
        if own_scales:
            for scale in scales[::-1]:
                colour_bar(figure, scale, list(panel), below=True)
    for above, below, analysis in zip(panels[::2, 0], panels[1::2, 0], analyses, strict=True):
        above.set_ylabel(analysis.model, fontsize=_TITLE_SIZE)
        below.set_ylabel("means of blocks", fontsize=_TITLE_SIZE)
    if not own_scales:
        for scale in shared[::-1]:
            colour_bar(figure, scale, list(panels.flat))
    _add_key(figure, list(chain.from_iterable(blocks)), every_matrix)
    return figure


def has_groups(analyses: Sequence[Analysis], name: str) -> bool:
    """Whether any of the networks has filter groups between the two layers of this pair."""
    return any(
        each.own_groups(pair) > 1 for each in analyses for pair in each.pairs if pair.name == name
    )


def save(figure: Figure, folder: Path, name: str, style: Style) -> None:
    """Write one of these pictures into ``folder``."""
    saving.save(figure, folder, name, style, palette_colours())


def _figure(width: float, height: float, title: str, analysis: Analysis) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    stage = "before" if analysis.before_relu else "after"
    figure.suptitle(
        f"{title}; {count(analysis.images)} images, responses {stage} ReLU", fontsize=10
    )
    return figure


def _add_key(figure: Figure, blocks: Sequence[Blocks], matrices: Sequence[Matrix]) -> None:
    key = []
    if any(each.groups > 1 and each.own for each in blocks):
        key.append("outlined: filter groups")
    if any(each.groups > 1 and not each.own for each in blocks):
        key.append("dashed: blocks to compare with, not the network's")
    if any(np.isnan(matrix).any() for matrix in matrices):
        key.append("grey: channels that never vary")
    if key:
        figure.supxlabel("   ".join(key), fontsize=7)


def _blocks(analysis: Analysis, pair: Pair, groups: int | None) -> Blocks:
    own = analysis.own_groups(pair)
    if groups is None or groups == own:
        return Blocks(own)
    return Blocks(groups if groups in pair.scores else 1, own=False)


def _comparable_blocks(analyses: Sequence[Analysis], pairs: Sequence[Pair]) -> list[Blocks]:
    """The groups each network has in this pair; where it has none, the finest of the others."""
    own = [each.own_groups(pair) for each, pair in zip(analyses, pairs, strict=True)]
    return [Blocks(groups) if groups > 1 else Blocks(max(own), own=False) for groups in own]


def _score_words(pair: Pair, blocks: Blocks) -> str:
    if blocks.groups == 1:
        return "no groups"
    score = pair.scores[blocks.groups]
    kind = "groups" if blocks.own else "blocks"
    return f"{blocks.groups} {kind}, ratio {score.ratio:.2f}"


def _layer_words(layer: Layer) -> str:
    words = [layer.name]
    if layer.groups > 1:
        words.append(f"{layer.groups} groups")
    if constant := layer.channels - layer.varying:
        words.append(f"{constant} never vary")
    return ", ".join(words)


def _shown(analysis: Analysis, pair: Pair, matrix: Matrix | None) -> Matrix:
    return _hide(matrix, analysis.layers[pair.first], analysis.layers[pair.second])


def _hide(matrix: Matrix | None, first: Layer, second: Layer) -> Matrix:
    """The matrix with NaN for channels that never vary: those have no correlation with themselves."""
    assert matrix is not None
    shown = matrix.copy()
    if first.correlation is not None:
        shown[np.diag(first.correlation) == 0, :] = np.nan
    if second.correlation is not None:
        shown[:, np.diag(second.correlation) == 0] = np.nan
    return shown


def _block_means(matrix: Matrix, groups: int) -> Matrix:
    """Mean |value| of each block [groups, groups]; NaN where a block has nothing but NaN."""
    return _means_of(matrix, groups, groups)


def _means(matrix: Matrix, blocks: Blocks) -> Matrix:
    """Means over its blocks; where it has none, over as many as are still seen well."""
    if blocks.groups > 1:
        return _block_means(matrix, blocks.groups)
    rows, columns = (_divisor(channels) for channels in matrix.shape)
    return _means_of(matrix, rows, columns)


def _divisor(channels: int) -> int:
    return max(n for n in range(1, _MOST_MEANS + 1) if channels % n == 0)


def _means_of(matrix: Matrix, down: int, across: int) -> Matrix:
    rows, columns = matrix.shape
    blocks = np.abs(matrix).reshape(down, rows // down, across, columns // across)
    there = (~np.isnan(blocks)).sum(axis=(1, 3))
    means: Matrix = np.where(there, np.nansum(blocks, axis=(1, 3)) / np.maximum(there, 1), np.nan)
    return means


def _scales(
    matrices: Sequence[Matrix], means: Sequence[Matrix], *, own: bool
) -> list[tuple[Scale, Scale]]:
    """Of each matrix and of its means; one for all, unless each has its own."""
    sets = [([one], [other]) for one, other in zip(matrices, means, strict=True)]
    if not own:
        sets = [(list(matrices), list(means))] * len(sets)
    return [
        (Scale.fitting(_WHITENED, one), Scale.whole(f"mean {_WHITENED}", other))
        for one, other in sets
    ]


def _names(analysis: Analysis, pair: Pair) -> Names:
    """The classes, where a layer's channels are these."""
    return Names(analysis.layers[pair.first].labels, analysis.layers[pair.second].labels)
