"""The pictures' scales and blocks, messages that fit together, progress, images in chunks."""

import dataclasses
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from rootserve.client.analysis import figures
from rootserve.client.analysis.heatmap import Blocks, Scale, draw
from rootserve.client.analysis.messages import Assembler, matrix_chunks
from rootserve.client.analysis.progress import ProgressBar, progress_text
from rootserve.client.analysis.report import print_pairs
from rootserve.client.analysis.results import Analysis, Layer, Matrix, Pair, Score
from rootserve.client.analysis.service import Progress
from rootserve.client.analysis.sources import local_images
from rootserve.client.analysis.style import Style
from rootserve.client.errors import InputError, MalformedAnswer
from rootserve.v1 import analysis_pb2 as pb

NAN = float("nan")


def layer(name: str, channels: int, groups: int = 1, dead: int = 0) -> Layer:
    correlation = np.eye(channels)
    correlation[:dead] = 0
    return Layer(
        name=name, channels=channels, height=8, width=8, groups=groups, samples=640,
        varying=channels - dead, rank=channels - dead, correlation=correlation,
    )  # fmt: skip


def analysis(model: str, groups: int = 1, dead: int = 0) -> Analysis:
    """Layers of 24 and 48 channels, and 10 classes behind them."""
    layers = [layer("a", 24, dead=dead), layer("b", 48, groups), layer("c", 10)]
    scores = {g: Score(1.5, 1 / g, 0.3, 9.0) for g in (2, 3, 4, 6, 8, 12, 24)}
    matrix = np.random.default_rng(0).normal(0, 0.1, (24, 48))
    pairs = (
        Pair("a", "b", 640, scores, groups, matrix, matrix / 2),
        Pair("b", "c", 640, {2: Score(1.0, 0.5, 0.0, 0.0)}, 1, matrix.T[:, :10], matrix.T[:, :10]),
    )
    return Analysis(model, "", 10, False, 1e-6, {each.name: each for each in layers}, pairs)


def panels(figure: Figure) -> list[Matrix]:
    return [np.ma.filled(axes.images[0].get_array(), NAN) for axes in figure.axes if axes.images]


def outlines(figure: Figure) -> list[tuple[int, bool]]:
    """Number of boxes in each panel and whether they are dashed."""
    return [
        (len(lines.get_segments()), lines.get_linestyle()[0][1] is not None)
        for axes in figure.axes
        for lines in axes.collections
        if isinstance(lines, LineCollection) and axes.images
    ]


def words(figure: Figure) -> str:
    texts = [figure.get_suptitle(), figure.get_supxlabel()]
    for axes in figure.axes:
        texts += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
    return " | ".join(filter(None, texts))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_a_scale_holds_all_but_half_a_percent(rows: int, columns: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(rows, columns))
    scale = Scale.fitting("x", [matrix, matrix / 2])
    values = np.abs([matrix, matrix / 2])
    assert 0 < scale.top <= values.max()
    assert (values > scale.top).mean() <= 0.0051 + 1 / values.size
    assert scale.clipped == bool(values.max() > scale.top)


def test_scales_leave_out_channels_that_never_vary_and_diagonals() -> None:
    matrix = np.array([[1.0, 0.2], [0.2, 1.0]])
    scale = Scale.fitting("x", [matrix], diagonal=False)
    assert (scale.top, scale.clipped) == (0.2, True)
    assert Scale.whole("x", [np.array([[NAN, -3.0]])]).top == 3.0
    for nothing in (np.full((2, 2), NAN), np.zeros((2, 2))):
        assert Scale.fitting("x", [nothing]).top == 1.0
        assert Scale.whole("x", [nothing]).top == 1.0


def test_blocks_are_outlined_where_the_groups_are() -> None:
    axes = Figure().subplots()
    draw(axes, np.ones((24, 48)), Scale("x", 1.0, clipped=False), Blocks(4))
    (lines,) = (each for each in axes.collections if isinstance(each, LineCollection))
    third = lines.get_segments()[2]
    assert third.min(axis=0).tolist() == [24, 12]  # columns, rows
    assert third.max(axis=0).tolist() == [36, 18]
    assert axes.get_xticks().tolist() == [0, 12, 24, 36, 48]


def test_a_pair_is_shown_plain_and_whitened_with_the_score() -> None:
    shown = analysis("nin-root-8", 8, dead=3)
    figure = figures.pair_figure(shown, shown.pairs[0])
    plain, white = (panel[::2] for panel in panels(figure))  # rows are drawn twice as high
    assert shown.pairs[0].covariance is not None
    np.testing.assert_allclose(plain[3:], np.abs(shown.pairs[0].covariance)[3:])
    np.testing.assert_allclose(white[3:], plain[3:] / 2)
    assert np.isnan(plain[:3]).all()
    assert outlines(figure) == [(8, False), (8, False)]
    text = words(figure)
    assert "nin-root-8, a and b; 10 images, responses after ReLU" in text
    assert "8 groups, ratio 1.50" in text
    assert "grey: channels that never vary" in text


def test_other_blocks_than_the_networks_are_dashed() -> None:
    shown = analysis("nin-root-8", 8)
    figure = figures.pair_figure(shown, shown.pairs[0], groups=4)
    assert outlines(figure) == [(4, True), (4, True)]
    assert "4 blocks, ratio 1.50" in words(figure)
    # Blocks that do not divide a pair evenly are not drawn there.
    assert outlines(figures.pairs_figure(shown, groups=6)) == [(6, True)]


def test_networks_without_groups_are_compared_on_the_finest_grid() -> None:
    networks = [analysis("nin-orig"), analysis("nin-root-4", 4), analysis("nin-root-8", 8)]
    figure = figures.pair_of_networks_figure(networks, "a-b")
    assert outlines(figure) == [(8, True), (4, False), (8, False)]
    means = panels(figure)[3:]
    assert [mean.shape for mean in means] == [(8, 8), (4, 4), (8, 8)]
    matrix = networks[0].pairs[0].whitened
    assert matrix is not None
    assert means[0][1, 2] == pytest.approx(np.abs(matrix[3:6, 12:18]).mean())
    assert outlines(figures.networks_figure(networks)) == [(8, True), (4, False), (8, False)]
    assert [figures.has_groups(networks, name) for name in ("a-b", "b-c")] == [True, False]


def test_panels_of_a_figure_share_one_scale() -> None:
    for figure in (
        figures.pairs_figure(analysis("nin-orig")),
        figures.networks_figure([analysis("nin-orig"), analysis("nin-root-8", 8)]),
        figures.correlation_figure(analysis("nin-root-8", 8)),
    ):
        tops = {axes.images[0].norm.vmax for axes in figure.axes if axes.images}
        # Matrices have one, and the means of their blocks another.
        assert len(tops) == (1 if figure.axes[0].get_title() == "a" else 2)


@pytest.mark.parametrize("own_scales", [False, True])
def test_means_of_blocks_stand_beside_the_pairs_of_a_network(own_scales: bool) -> None:
    shown = analysis("nin-root-8", 8)
    figure = figures.pairs_figure(shown, own_scales=own_scales)
    pair, mean, _, other = panels(figure)
    assert pair.shape == (48, 48)
    assert shown.pairs[0].whitened is not None
    expected = np.abs(shown.pairs[0].whitened).reshape(8, 3, 8, 6).mean(axis=(1, 3))
    np.testing.assert_allclose(mean, expected)
    assert other.shape == (16, 20)  # 16 blocks of 3 channels, and 10 channels drawn twice as wide
    tops = [axes.images[0].norm.vmax for axes in figure.axes if axes.images]
    assert len(set(tops)) == (4 if own_scales else 2)
    bars = [axes for axes in figure.axes if not axes.images]
    assert len(bars) == len(set(tops))


def test_networks_are_shown_with_the_means_of_the_same_blocks() -> None:
    networks = [analysis("nin-orig"), analysis("nin-root-4", 4), analysis("nin-root-8", 8)]
    for own_scales in (False, True):
        figure = figures.networks_figure(networks, own_scales=own_scales)
        shapes = [panel.shape for panel in panels(figure)]
        # Two pairs across; each network has its matrices, and their means below.
        assert shapes[2::4] == [(8, 8), (4, 4), (8, 8)]
        scales = [axes.images[0].norm.vmax for axes in figure.axes if axes.images]
        assert scales[0::4] == [scales[0]] * 3  # a pair in all networks
        assert (scales[0] != scales[1]) == own_scales


def test_channels_that_are_classes_have_their_names() -> None:
    shown = analysis("nin-root-8", 8)
    classes = tuple("abcdefghij")
    last = dataclasses.replace(shown.layers["c"], labels=classes)
    shown = dataclasses.replace(shown, layers={**shown.layers, "c": last})

    def named(figure: Figure) -> list[str]:
        ticks = [
            tuple(label.get_text() for label in axis.get_ticklabels())
            for axes in figure.axes
            for axis in (axes.xaxis, axes.yaxis)
        ]
        return ["".join(words) for words in ticks if words == classes]

    assert len(named(figures.pair_figure(shown, shown.pairs[1]))) == 2  # plain and whitened
    assert len(named(figures.pairs_figure(shown))) == 2  # and the means
    assert len(named(figures.correlation_figure(shown))) == 2  # at both axes
    assert len(named(figures.networks_figure([shown, shown]))) == 1  # at the bottom
    assert not named(figures.pair_figure(shown, shown.pairs[0]))


@pytest.mark.parametrize("dead", [24, 0])
def test_a_layer_without_any_variance_is_drawn(dead: int, tmp_path: Path) -> None:
    network = analysis("nin-root-8", 8, dead)
    for n, figure in enumerate(
        (
            figures.pair_figure(network, network.pairs[0]),
            figures.pair_of_networks_figure([network], "a-b"),
            figures.correlation_figure(network),
        )
    ):
        figures.save(figure, tmp_path, str(n), Style())


def test_a_picture_keeps_its_colours(tmp_path: Path) -> None:
    shown = analysis("nin-root-8", 8)
    figures.save(figures.pair_figure(shown, shown.pairs[0]), tmp_path, "x", Style())
    full = io.BytesIO()
    figures.pair_figure(shown, shown.pairs[0]).savefig(full, format="png")
    with Image.open(tmp_path / "x.png") as small, Image.open(full) as large:
        difference = np.abs(
            np.asarray(small.convert("RGB"), int) - np.asarray(large.convert("RGB"), int)
        )
    assert (tmp_path / "x.png").stat().st_size < len(full.getvalue()) / 2
    assert difference.mean() < 2


def test_tables_fit_and_say_what_was_asked() -> None:
    screen = Console(file=io.StringIO(), width=80, highlight=False)
    print_pairs(screen, analysis("nin-root-8", 8), groups=4)
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "a-b 24, 48 8 4 1.50 25%" in " ".join(text.split())
    assert "b-c 48, 10 1 4 - -" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_progress() -> None:
    assert progress_text(Progress(2_000, 10_000, 350.4, 22.9)) == (
        "2,000 of 10,000 images, 350/s, 23 s left"
    )
    assert progress_text(Progress(2_000, 0, 350.4, None)) == "2,000 images, 350/s"
    screen = Console(file=io.StringIO(), width=80, force_terminal=True)
    with ProgressBar(screen, "nin-orig") as bar:
        bar.progress(Progress(2_000, 10_000, 350.4, 22.9))
    assert "2,000 of 10,000" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_progress_off_a_terminal_is_told_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    @contextmanager
    def telling(_: Console, text: str) -> Iterator[Callable[[str], None]]:
        told.append(text)
        yield told.append

    monkeypatch.setattr("rootserve.client.analysis.progress.telling", telling)
    with ProgressBar(Console(file=io.StringIO()), "nin-orig") as bar:
        bar.progress(Progress(2_000, 10_000, 350.4, 22.9))
    assert told == [
        "nin-orig: waiting for its turn",
        "nin-orig: 2,000 of 10,000 images, 350/s, 23 s left",
    ]


def test_groups_that_divide_no_pair_end_the_analysis_at_its_start() -> None:
    bar = ProgressBar(Console(file=io.StringIO()), "nin-orig", groups=16)
    bar.started({"a": 96, "b": 192, "c": 10}, [("b", "c"), ("a", "b")])
    with pytest.raises(InputError, match=r"--groups 16: .*b-c \(192 and 10 channels\)"):
        bar.started({"b": 192, "c": 10}, [("b", "c")])


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 500), st.integers(1, 800))
def test_matrices_survive_the_wire(rows: int, columns: int) -> None:
    matrix = np.random.default_rng(0).normal(size=(rows, columns))
    chunks = matrix_chunks(("scatter", "a", ""), matrix)
    assert all(len(chunk.data) <= 1024 * 1024 for chunk in chunks)
    assembler = Assembler()
    for chunk in chunks:
        assembler.take(pb.AnalyzeResponse(chunk=chunk))
    assembler.take(pb.AnalyzeResponse(sums=pb.Sums(model="m")))
    assembler.take(pb.AnalyzeResponse(summary=pb.AnalysisSummary(model="m")))
    sums = assembler.result().sums
    assert sums is not None
    np.testing.assert_array_equal(sums.matrices["scatter", "a", ""], matrix)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 400), st.integers(0, 50), st.integers(1, 40))
def test_images_come_in_chunks_and_in_order(rows: int, skip: int, take: int) -> None:
    path = Path(__file__).parents[3] / "examples" / "cifar10-sample.parquet"
    source = local_images(path, 32, skip=skip, take=take)
    chunks = list(source.chunks(rows))
    assert sum(map(len, chunks)) == source.count == take
    assert all(len(chunk) == rows for chunk in chunks[:-1])


def test_images_of_different_sizes_are_refused(tmp_path: Path) -> None:
    for n, size in enumerate((32, 48)):
        Image.new("RGB", (size, size)).save(tmp_path / f"{n}.png")
    source = local_images(tmp_path, 32)
    assert next(source.chunks(2)).shape == (2, 3, 32, 32)  # pictures are made to fit
    mixed = dataclasses.replace(
        source, read=lambda: iter([np.zeros((3, 32, 32), np.uint8), np.zeros((3, 8, 9), np.uint8)])
    )
    with pytest.raises(InputError, match="32x32, 9x8"):
        next(mixed.chunks(2))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_responses_that_overflow_are_no_result(bad: float) -> None:
    assembler = Assembler()
    matrix = np.ones((2, 3))
    matrix[1, 2] = bad
    for chunk in matrix_chunks(("covariance", "conv1a", "conv1b"), matrix):
        assembler.take(pb.AnalyzeResponse(chunk=chunk))
    assembler.take(pb.AnalyzeResponse(summary=pb.AnalysisSummary(model="m")))
    with pytest.raises(MalformedAnswer, match="the responses of conv1a or conv1b overflow"):
        assembler.result()
