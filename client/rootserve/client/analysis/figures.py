"""The paper's covariance figures, drawn from results: Figs. 10, 11, 12 and 13 of the appendix."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rootserve.client.analysis import saving
from rootserve.client.analysis.heatmap import Blocks, Scale, colour_bar, draw, palette_colours
from rootserve.client.analysis.results import Analysis, Layer, Matrix, Pair
from rootserve.client.analysis.style import Style
from rootserve.client.units import count

_COVARIANCE = "|covariance|"
_WHITENED = "|covariance of whitened responses|"
_CORRELATION = "|correlation|"
_TITLE_SIZE = 8
_DPI = 100


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
        draw(axes, matrix, scale, blocks)
        axes.set_title(title, fontsize=_TITLE_SIZE)
        axes.set_xlabel(f"channels of {pair.second}", fontsize=_TITLE_SIZE)
        axes.set_ylabel(f"channels of {pair.first}", fontsize=_TITLE_SIZE)
        colour_bar(figure, scale, [axes])
    _add_key(figure, [blocks], matrices)
    return figure


def pairs_figure(analysis: Analysis, groups: int | None = None) -> Figure:
    """Whitened covariance of all pairs of one network: a part of Fig. 13."""
    pairs = analysis.pairs
    matrices = [_shown(analysis, pair, pair.whitened) for pair in pairs]
    blocks = [_blocks(analysis, pair, groups) for pair in pairs]
    titles = [
        f"{pair.first} and {pair.second}\n{_score_words(pair, each)}"
        for pair, each in zip(pairs, blocks, strict=True)
    ]
    scale = Scale.fitting(_WHITENED, matrices)
    return _grid(f"{analysis.model}, adjacent layers", analysis, scale, matrices, blocks, titles)


def correlation_figure(analysis: Analysis) -> Figure:
    """Correlation within each layer: as Fig. 11. The diagonal is 1, and off the scale."""
    layers = list(analysis.layers.values())
    matrices = [_hide(layer.correlation, layer, layer) for layer in layers]
    blocks = [Blocks(layer.groups) for layer in layers]
    titles = [_layer_words(layer) for layer in layers]
    scale = Scale.fitting(_CORRELATION, matrices, diagonal=False)
    return _grid(f"{analysis.model}, within layers", analysis, scale, matrices, blocks, titles)


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


def networks_figure(analyses: Sequence[Analysis]) -> Figure:
    """All pairs of several networks, one row each: as Fig. 13.

    Args:
        analyses: Of the networks, all with the same pairs.
    """
    names = [f"{pair.first}\nand {pair.second}" for pair in analyses[0].pairs]
    # One column of the figure after the other: the same pair in all networks.
    columns = list(zip(*(each.pairs for each in analyses), strict=True))
    blocks = [_comparable_blocks(analyses, pairs) for pairs in columns]
    matrices = [
        [_shown(each, pair, pair.whitened) for each, pair in zip(analyses, pairs, strict=True)]
        for pairs in columns
    ]
    every_matrix = list(chain.from_iterable(matrices))
    scale = Scale.fitting(_WHITENED, every_matrix)
    figure = _figure(
        1.5 + 1.3 * len(names), 1.1 + 1.45 * len(analyses), "adjacent layers", analyses[0]
    )
    panels = figure.subplots(len(analyses), len(names), squeeze=False)
    for column, *content in zip(panels.T, columns, matrices, blocks, strict=True):
        for axes, pair, matrix, each in zip(column, *content, strict=True):
            draw(axes, matrix, scale, each, numbers=False)
            if each.groups > 1:
                axes.set_title(_score_words(pair, each), fontsize=6.5, pad=3)
    for axes, analysis in zip(panels[:, 0], analyses, strict=True):
        axes.set_ylabel(analysis.model, fontsize=_TITLE_SIZE)
    for axes, name in zip(panels[-1], names, strict=True):
        axes.set_xlabel(name, fontsize=_TITLE_SIZE)
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


def _grid(
    title: str,
    analysis: Analysis,
    scale: Scale,
    matrices: Sequence[Matrix],
    blocks: Sequence[Blocks],
    titles: Sequence[str],
) -> Figure:
    # As few places empty as can be.
    columns = min(len(matrices), 4 if -len(matrices) % 4 <= -len(matrices) % 3 else 3)
    rows = -(-len(matrices) // columns)
    figure = _figure(1.2 + 2.5 * columns, 0.7 + 2.75 * rows, title, analysis)
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, matrix, each, words in zip(panels, matrices, blocks, titles, strict=False):
        draw(axes, matrix, scale, each)
        axes.set_title(words, fontsize=_TITLE_SIZE)
    for axes in panels[len(matrices) :]:
        axes.set_axis_off()
    colour_bar(figure, scale, panels)
    _add_key(figure, blocks, matrices)
    return figure


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
    rows, columns = matrix.shape
    blocks = np.abs(matrix).reshape(groups, rows // groups, groups, columns // groups)
    there = (~np.isnan(blocks)).sum(axis=(1, 3))
    means: Matrix = np.where(there, np.nansum(blocks, axis=(1, 3)) / np.maximum(there, 1), np.nan)
    return means
