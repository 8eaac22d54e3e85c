"""Pictures of profiles and filters: what is in them, and that nothing overlaps."""

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console

from rootserve.client.analysis.filters_figure import filters_figure
from rootserve.client.analysis.labels import last_layer
from rootserve.client.analysis.layers import (
    Filters,
    Layer,
    Measurement,
    Profile,
    Time,
    median_profile,
)
from rootserve.client.analysis.profile_figure import profile_figure
from rootserve.client.analysis.profile_report import print_profile, to_json
from rootserve.client.commands.analyze_layers import groups_behind

TIME = Time(0.002, 0.001, 0.004)


def layer(name: str, kind: str = "conv", groups: int = 1, **values: object) -> Layer:
    given = {
        "name": name, "alias": None, "kind": kind, "groups": groups, "kernel": 3, "stride": 1,
        "in_channels": 64, "out_channels": 64, "height": 8, "width": 8,
        "params": 36_864 // groups if kind == "conv" else 0,
        "macs": 2_359_296 // groups if kind == "conv" else 0, "time": TIME, "computed_in": None,
    }  # fmt: skip
    return Layer(**{**given, **values})


def profile(model: str, blocks: int, groups: int = 1, *, timed: bool = True) -> Profile:
    layers = [layer("conv1"), layer("pool1", "max_pool")]
    for block in range(blocks):
        name = f"res{2 + block // 6}{'abcdef'[block % 6]}"
        layers += [
            layer(f"{name}_branch2a"),
            layer(f"{name}_branch2b", groups=groups),
            layer(f"{name}_branch2c"),
            layer(name, "add", time=None, computed_in=f"{name}_branch2c"),
        ]
    measurement = Measurement("openvino", "fp32", "cpu", 2, 1, 31, TIME, TIME)
    return Profile(model, tuple(layers), measurement if timed else None, None)


def texts_overlap(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap on the page."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = []
    for axes in figure.axes:
        labels = [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        if axes.axison:
            for axis, part in ((axes.xaxis, 0), (axes.yaxis, 1)):
                low, high = sorted(axis.get_view_interval())
                labels += [
                    label
                    for label in axis.get_ticklabels()
                    if low <= label.get_position()[part] <= high
                ]
        boxes += [
            (text.get_text(), text.get_window_extent(renderer))
            for text in labels
            if text.get_visible() and text.get_text()
        ]
    boxes += [
        (text.get_text(), text.get_window_extent(renderer))
        for legend in figure.legends
        for text in legend.get_texts()
    ]
    for text in (figure._suptitle, figure._supxlabel):
        if text is not None:
            boxes.append((text.get_text(), text.get_window_extent(renderer)))
    for text, box in boxes:
        page = figure.bbox
        assert page.x0 - 1 <= box.x0, f"{text} leaves the page"
        assert box.x1 <= page.x1 + 1, f"{text} leaves the page"
    return [
        (one, other)
        for n, (one, box) in enumerate(boxes)
        for other, second in boxes[n + 1 :]
        if min(box.x1, second.x1) - max(box.x0, second.x0) > 1
        and min(box.y1, second.y1) - max(box.y0, second.y0) > 1
    ]


@pytest.mark.parametrize("blocks", [1, 17])
@pytest.mark.parametrize("timed", [False, True])
def test_bars_of_a_small_and_a_large_network(blocks: int, timed: bool) -> None:
    one, other = (
        profile("m-root-16", blocks, 16, timed=timed),
        profile("m-orig", blocks, timed=timed),
    )
    figure = profile_figure(one, other)
    assert len(figure.axes) == 2 + timed
    rows = 1 + 3 * blocks
    for axes in figure.axes:
        bars = [patch for patch in axes.patches if patch.get_height() < 0.5]
        assert len(bars) >= 2 * rows
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == rows + timed
    assert "res2a_branch2b, 16 groups" in labels
    assert texts_overlap(figure) == []


def test_one_model_alone() -> None:
    figure = profile_figure(profile("m-orig", 2))
    assert texts_overlap(figure) == []
    (legend,) = figure.legends
    assert [text.get_text().split(":")[0] for text in legend.get_texts()] == ["m-orig"]


def test_tables_and_json_tell_what_was_measured_and_what_not() -> None:
    one, other = profile("m-root-16", 1, 16), profile("m-orig", 1, timed=False)
    screen = Console(width=100, record=True, file=None, quiet=False)
    with screen.capture() as capture:
        print_profile(screen, one)
        print_profile(screen, one, other)
    out = capture.get()
    assert "2.00 ms" in out
    assert "openvino fp32 on cpu, 2 threads, one image, median of 31 runs" in out
    rows = json.loads(json.dumps(to_json(one, other)))
    (row,) = [row for row in rows if row["layer"] == "res2a_branch2b"]
    assert (row["params"], row["against"]["params"]) == (2304, 36_864)
    assert row["time_s"] == {"median": 0.002, "lower_quartile": 0.001, "upper_quartile": 0.004}
    (add,) = [row for row in rows if row["kind"] == "add"]
    assert (add["time_s"], add["computed_in"]) == (None, "res2a_branch2c")


def test_the_median_of_several_measurements() -> None:
    one = profile("m-orig", 1)
    slow = Time(0.009, 0.008, 0.01)
    fast = Time(0.001, 0.001, 0.002)
    others = [
        replace(
            one,
            layers=tuple(replace(each, time=each.time and time) for each in one.layers),
            measurement=replace(one.measurement, total=time),
        )
        for time in (slow, fast)
    ]
    merged = median_profile([one, *others])
    assert [layer.time for layer in merged.layers] == [layer.time for layer in one.layers]
    assert merged.measurement == replace(one.measurement, runs=93)
    untimed = profile("m-orig", 1, timed=False)
    assert median_profile([untimed]) is untimed


def filters(out: int, channels: int, kernel: int, groups: int = 1) -> Filters:
    weights = np.random.default_rng(0).normal(0, 1, (out, channels, kernel, kernel))
    about = layer(
        "conv1", groups=groups, kernel=kernel, in_channels=channels * groups, out_channels=out
    )
    return Filters("m-root-16", about, "", weights.astype(np.float32))


@pytest.mark.parametrize("groups", [1, 2, 4, 8, 16, 32, 64])
def test_tiles_in_colour_with_the_groups_that_follow(groups: int) -> None:
    figure = filters_figure(filters(64, 3, 7), groups, "res2a_branch2b")
    (axes,) = figure.axes
    (image,) = axes.images
    pixels = np.asarray(image.get_array())
    coloured = (np.abs(pixels - 1.0) > 1e-9).any(axis=2)
    assert coloured.sum() >= 64 * 49 - 64  # a weight may be the largest in all three channels
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(boxes) == (groups if groups > 1 else 0)
    assert texts_overlap(figure) == []
    # The first filter stands in the first corner, in its own scale.
    weight = filters(64, 3, 7).weights[0]
    first = 0.5 + 0.5 * weight.transpose(1, 2, 0) / np.abs(weight).max()
    np.testing.assert_allclose(pixels[:7, :7], first, atol=1e-6)


def test_groups_behind_a_dense_layer_are_not_those_of_the_filters() -> None:
    first = layer("conv1a", in_channels=3, out_channels=192)
    pool = layer("pool", kind="max_pool", in_channels=192, out_channels=192)
    dense = layer("conv1b", in_channels=192, out_channels=192)
    grouped = layer("conv2a", groups=16, in_channels=192, out_channels=192)

    def found(*layers: Layer) -> tuple[int, str]:
        return groups_behind(Profile("m", layers, None, None), layers[0])

    assert found(first, pool, grouped, dense) == (16, "conv2a")
    assert found(first, pool, dense, grouped) == (1, "")
    assert found(first, pool) == (1, "")
    assert found(layer("odd", out_channels=10), grouped) == (1, "")


def test_filters_that_are_classes_have_their_names() -> None:
    names = [f"class {n}" for n in range(10)]
    figure = filters_figure(filters(10, 192, 1), labels=names)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == names
    assert texts_overlap(figure) == []
    classifier = layer("conv3c", out_channels=10)
    for layers, expected in (
        ([layer("conv3b"), classifier, layer("pool", kind="global_avg_pool")], "conv3c"),
        ([classifier, layer("conv3d", out_channels=12)], ""),
        ([layer("pool", kind="max_pool")], ""),
    ):
        assert last_layer(Profile("m", layers, None, None), 10) == expected


@pytest.mark.parametrize(
    ("out", "channels", "kernel", "groups"),
    [(192, 96, 5, 1), (192, 6, 5, 16), (10, 192, 1, 1), (512, 512, 3, 1), (64, 1, 3, 64)],
)
def test_other_filters_in_grey(out: int, channels: int, kernel: int, groups: int) -> None:
    given = filters(out, channels, kernel, groups)
    figure = filters_figure(given)
    values = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    assert values.shape == (out, channels * groups)
    assert (~np.isnan(values)).sum() == out * channels
    # The last filter looks at the last channels.
    np.testing.assert_allclose(
        values[-1, -channels:],
        np.linalg.norm(given.weights[-1].reshape(channels, -1), axis=1),
        rtol=1e-5,
    )
    assert texts_overlap(figure) == []
