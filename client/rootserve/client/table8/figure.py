"""Table 8 as a picture: accuracy against time and FLOPs, and speed-up against what FLOPs promise."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rootserve.client.files import write_picture
from rootserve.client.table8.rows import Column, Row, Spread, Table
from rootserve.client.table8.text import facts

_COLOURS = {"orig": "#222222", "root": "#1668b8", "tree": "#2b8a3e", "col": "#c2570c"}
_MARKERS = {"orig": "s", "root": "o", "tree": "^", "col": "D"}
_OTHER = "#555555"
_NAMES = {"cpu": "CPU", "gpu": "GPU"}
# Where a label may stand, in points from its mark, best first.
_OFFSETS = [
    (6, 4),
    (6, -10),
    (-6, 4),
    (-6, -10),
    (0, 8),
    (0, -15),
    (9, -3),
    (-9, -3),
    (12, 12),
    (12, -20),
    (16, -3),
    (-14, 12),
    (-14, -20),
    (6, 14),
    (-6, 14),
    (6, -22),
    (-6, -22),
]
_UNCLEAR = 30.0
"""As bad as so many square points covered: a name that stands nearer to another mark than to its own."""
_APART = 4.0
"""Points between two names in a line."""
_PANEL_IN = 4.6  # height of a panel and its least width, in inches
_Spot = tuple[float, float]
_Area = tuple[float, float, float, float]
_Point = Callable[[Row], _Spot | None]


def draw(table: Table, path: Path) -> None:
    """Draw it to a file whose format follows from its name: PNG, SVG or PDF.

    Raises:
        InputError: The file cannot be written.
    """
    # Only here, so that no other command waits for it.
    from matplotlib.figure import Figure  # noqa: PLC0415

    columns = table.columns
    # Without accuracies only the speed-ups are left to be shown.
    accurate = not columns or any(row.accuracy is not None for row in table.rows)
    times, speedups = [f"{c} time" for c in columns], [f"{c} speed-up" for c in columns]
    # Each name takes as many places of the row as its panel is wide.
    rows: list[Any]
    if not accurate:
        rows = [[name for name in speedups for _ in range(2)]]
    elif len(columns) < 2:
        rows = [[*times, "flops", *(2 * speedups)]]
    else:
        rows = [
            [name for name in (*times, "flops") for _ in range(2)],
            [name for name in speedups for _ in range(3)],
        ]
    size = (_PANEL_IN * len(rows[0]) / len(rows), _PANEL_IN * len(rows))
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    axes = figure.subplot_mosaic(rows)
    for time, speedup, column in zip(times, speedups, columns, strict=True):
        if accurate:
            label = f"ms per image, {_NAMES[column]}"
            _accuracy_panel(axes[time], table, _time_point(column), label)
        _speedup_panel(axes[speedup], table, column)
    if accurate:
        _accuracy_panel(axes["flops"], table, _flops_point, "FLOPs per image, in millions")
    figure.suptitle("\n".join(facts(table)), fontsize=8, color="#555555", x=0.01, ha="left")
    handles, labels = axes[rows[-1][-1]].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=7, frameon=False)
    write_picture(figure.savefig, path, "table8.png")


def _time_point(column: Column) -> _Point:
    def point(row: Row) -> _Spot | None:
        timing = row.timing(column)
        return (timing.ms.median, row.accuracy) if timing and row.accuracy is not None else None

    return point


def _flops_point(row: Row) -> _Spot | None:
    return None if row.accuracy is None else (row.flops / 1e6, row.accuracy)


def _accuracy_panel(axis: Any, table: Table, point: _Point, label: str) -> None:
    axis.set(xlabel=label, ylabel="accuracy (top-1), %")
    marks = [(row, (found[0], 100 * found[1])) for row in table.rows if (found := point(row))]
    _frame(axis, [xy for _, xy in marks], least_height=1.0)
    for row, xy in marks:
        _mark(axis, row, xy)
    _write_labels(axis, marks)


def _speedup_panel(axis: Any, table: Table, column: Column) -> None:
    """Measured (full marks) and the paper's (hollow) speed-up; on the line, FLOPs are all."""
    axis.set(xlabel="FLOPs ratio: orig / variant", ylabel=f"speed-up over orig, {_NAMES[column]}")
    measured: list[tuple[Row, float, Spread]] = []
    paper: list[tuple[Row, _Spot]] = []
    for row in table.rows:
        ratio = table.flops_ratio(row)
        if ratio is None:
            continue
        if speedup := table.speedup(row, column):
            measured.append((row, ratio, speedup))
        if theirs := table.paper_speedup(row, column):
            paper.append((row, (ratio, theirs)))
    ends = [(x, end) for _, x, speedup in measured for end in speedup[3:]]
    theirs_too = [xy for _, xy in paper]
    _frame(axis, ends + theirs_too, least_height=0.2)
    top = max(axis.get_xlim()[1], axis.get_ylim()[1])
    axis.plot([0, top], [0, top], color="#999999", linewidth=1, linestyle="--", label="FLOPs ratio")
    for row, xy in paper:
        _mark(axis, row, xy, hollow=True)
    for row, x, speedup in measured:
        colour = _COLOURS.get(row.topology, _OTHER)
        axis.vlines(x, speedup.lower_quartile, speedup.upper_quartile, color=colour, linewidth=1)
        _mark(axis, row, (x, speedup.median))
    bars = [(x, speedup.lower_quartile, speedup.upper_quartile) for _, x, speedup in measured]
    _write_labels(
        axis, [(row, (x, speedup.median)) for row, x, speedup in measured], theirs_too, bars
    )
    axis.vlines([], 0, 0, color="#555555", linewidth=1, label="middle half of the rounds")
    there = {row.topology for row in table.rows}
    for topology, marker in _MARKERS.items():
        if topology not in there:
            continue
        style = {"color": _COLOURS[topology], "marker": marker, "linestyle": "none"}
        axis.plot([], [], **style, label=topology)
    axis.plot([], [], color="#555555", marker="o", fillstyle="none", linestyle="none",
              label="hollow: the paper's")  # fmt: skip


def _frame(axis: Any, points: Sequence[_Spot], least_height: float) -> None:
    """Limits with room for labels; a range of nothing but noise is not blown up."""
    axis.grid(color="#e4e4e4", linewidth=0.8)
    axis.locator_params(nbins=6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if not points:
        axis.text(0.5, 0.5, "nothing measured", transform=axis.transAxes, ha="center")
        return
    for values, set_limits, least in (
        ([x for x, _ in points], axis.set_xlim, 0.0),
        ([y for _, y in points], axis.set_ylim, least_height),
    ):
        low, high = min(values), max(values)
        short = max(0.0, least - (high - low)) / 2
        margin = 0.14 * (high - low + 2 * short) or 0.1 * high
        set_limits(low - short - margin, high + short + margin)


def _mark(axis: Any, row: Row, xy: _Spot, *, hollow: bool = False) -> None:
    colour = _COLOURS.get(row.topology, _OTHER)
    axis.plot(
        *xy,
        marker=_MARKERS.get(row.topology, "o"),
        color=colour,
        markersize=6,
        fillstyle="none" if hollow else "full",
        alpha=0.55 if hollow else 1.0,
        linestyle="none",
    )


def _write_labels(
    axis: Any,
    marks: Sequence[tuple[Row, _Spot]],
    others: Sequence[_Spot] = (),
    bars: Sequence[tuple[float, float, float]] = (),
) -> None:
    """Write each name where it covers the least: marks, other points, bars (x, low, high), names."""
    # Positions in points on the page, in which text has a size.
    scale = 72 / axis.figure.dpi
    axis.figure.draw_without_rendering()  # only then is the panel where it will be

    def on_page(xy: _Spot) -> _Spot:
        x, y = axis.transData.transform(xy)
        return scale * x, scale * y

    frame = axis.bbox
    spots = [on_page(xy) for _, xy in marks]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in (*spots, *map(on_page, others))]
    for x, low, high in bars:
        (middle, bottom), (_, top) = on_page((x, low)), on_page((x, high))
        taken.append((middle - 2, bottom, middle + 2, top))
    for (row, xy), spot in zip(marks, spots, strict=True):
        text = row.name.partition("-")[2]
        areas = {offset: _text_area(spot, offset, len(text)) for offset in _OFFSETS}

        def cost(offset: tuple[int, int], spot: _Spot = spot, areas: Any = areas) -> float:
            area = areas[offset]
            inside = area[0] >= scale * frame.x0 and area[2] <= scale * frame.x1
            clear = all(_gap(area, spot) <= _gap(area, other) for other in spots)
            covered = sum(_overlap(area, other) for other in taken)
            return covered + (0 if clear else _UNCLEAR) + (0 if inside else 1e6)

        best = min(_OFFSETS, key=cost)
        left, bottom, right, top = areas[best]
        taken.append((left - _APART, bottom, right + _APART, top))
        axis.annotate(
            text,
            xy,
            best,
            textcoords="offset points",
            fontsize=8,
            ha=_alignment(best),
            color=_COLOURS.get(row.topology, _OTHER),
        )


def _alignment(offset: tuple[int, int]) -> str:
    return "right" if offset[0] < 0 else "center" if offset[0] == 0 else "left"


def _text_area(spot: _Spot, offset: tuple[int, int], letters: int) -> _Area:
    """Left, bottom, right and top of a label, by the usual width of a letter of 8 points."""
    width, height = 4.9 * letters, 8.0
    left = (
        spot[0] + offset[0] - {"left": 0.0, "center": width / 2, "right": width}[_alignment(offset)]
    )
    bottom = spot[1] + offset[1]
    return left, bottom, left + width, bottom + height


def _gap(area: _Area, spot: _Spot) -> float:
    """From a label to the middle of a mark."""
    x = max(area[0] - spot[0], spot[0] - area[2], 0.0)
    y = max(area[1] - spot[1], spot[1] - area[3], 0.0)
    return math.hypot(x, y)


def _overlap(one: _Area, other: _Area) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
