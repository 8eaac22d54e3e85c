"""Draws panels of the dashboard with matplotlib, each of the kinds that ops/grafana/panels.py makes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import matplotlib.dates as mdates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator

BACKGROUND, PANEL, EDGE, TEXT, FAINT = "#111217", "#181b1f", "#2c3235", "#ccccdc", "#8e8ea0"
COLORS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}
PALETTE = (
    "#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d", "#ffb357",
)  # fmt: skip
DPI = 100
LEGEND_BELOW_IN = 0.27
Series = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query of a panel gave: ``series`` of a range, or the samples of an instant."""

    legend: str
    series: Series

    def name(self, labels: Mapping[str, str]) -> str:
        """The legend of a series."""
        text = self.legend
        for label, value in labels.items():
            text = text.replace(f"{{{{{label}}}}}", value)
        return text


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A figure as Grafana would write it."""
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{100 * value:.3g} %" if decimals is None else f"{100 * value:.{decimals}f} %"
    if unit in {"s", "bytes", "Bps", "short"} or unit.startswith("si:"):
        return _scaled(value, unit, decimals)
    ending = {"reqps": " req/s", "watt": " W"}.get(unit, "")
    return f"{value:.{decimals}f}{ending}" if decimals is not None else f"{value:,.6g}{ending}"


def _scaled(value: float, unit: str, decimals: int | None) -> str:
    """``value`` with the prefix that makes it short."""
    places = 2 if decimals is None else decimals
    if unit == "s":
        number, step, names = value * 1e6, 1000.0, ["µs", "ms", "s"]
    elif unit in {"bytes", "Bps"}:
        per_s = "/s" if unit == "Bps" else ""
        number, step = value, 1024.0
        names = [f"{prefix}B{per_s}" for prefix in ("", "Ki", "Mi", "Gi")]
    else:
        number, step = value, 1000.0
        names = [f"{prefix}{unit.partition('si:')[2]}" for prefix in ("", "K", "M", "G")]
    while abs(number) >= step and len(names) > 1:
        number /= step
        del names[0]
    digits = f"{number:.{places}f}"
    short = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return f"{short} {names[0]}" if value else "0"


def empty(axes: Axes, text: str) -> None:
    """What a panel says that has no data."""
    axes.axis("off")
    axes.text(0.5, 0.5, text, color=FAINT, ha="center", va="center", fontsize=8, wrap=True)


def lines(axes: Axes, panel: Mapping[str, Any], answers: Sequence[Answer]) -> None:
    """Values over time, stacked if the panel is."""
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    named = [(answer.name(one["metric"]), one) for answer in answers for one in answer.series]
    named.sort(key=lambda pair: (pair[0] != "ok", pair[0]))
    times = sorted({float(t) for _, one in named for t, _ in one["values"]})
    floor = np.zeros(len(times))
    for number, (name, one) in enumerate(named):
        color = PALETTE[number % len(PALETTE)]
        found = {float(t): float(v) for t, v in one["values"]}
        values = np.array([found.get(t, np.nan) for t in times])
        if stacked:
            top = floor + np.nan_to_num(values)
            axes.fill_between(dates(times), floor, top, color=color, alpha=0.4, linewidth=0)
            values = floor = top
        axes.plot(dates(times), values, color=color, linewidth=1.1, label=name)
    for step in defaults.get("thresholds", {}).get("steps", [])[1:]:
        if axes.get_ylim()[1] > step["value"] / 4:
            axes.axhline(step["value"], color=COLORS["red"], linestyle="--", linewidth=0.9)
    axes.set_ylim(0, defaults.get("max", max(axes.get_ylim()[1] * 1.05, 1e-9)))
    _over_time(axes, defaults["unit"])
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[:6],
        labels[:6],
        loc="upper left",
        bbox_to_anchor=(
            -0.02,
            -LEGEND_BELOW_IN / axes.get_window_extent().height * DPI,
        ),
        ncols=3,
        fontsize=6,
        frameon=False,
        labelcolor=TEXT,
        handlelength=1,
        columnspacing=1,
        borderpad=0,
    )


def number(axes: Axes, panel: Mapping[str, Any], answers: Sequence[Answer]) -> None:
    """One figure, with its course behind it."""
    axes.axis("off")
    defaults = panel["fieldConfig"]["defaults"]
    points = [(float(t), float(v)) for t, v in answers[0].series[0]["values"]]
    value = points[-1][1]
    color = COLORS["green"]
    for step in defaults["thresholds"]["steps"][1:]:
        color = COLORS[step["color"]] if value >= step["value"] else color
    text = shown(value, defaults["unit"], defaults.get("decimals"))
    for mapping in defaults.get("mappings", []):
        words = mapping["options"].get(f"{value:g}")
        if words:
            text, color = words["text"], COLORS[words["color"]]
    if panel["options"].get("graphMode") == "area" and len(points) > 1:
        heights = np.array([v for _, v in points])
        heights = heights / max(heights.max(), 1e-12) * 0.4
        positions = np.linspace(0, 1, len(points))
        axes.fill_between(positions, 0, heights, color=color, alpha=0.2, linewidth=0)
        axes.plot(positions, heights, color=color, linewidth=0.8, alpha=0.7)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.text(0.5, 0.55, text, color=color, fontsize=19, ha="center", va="center", weight="bold")


def states(axes: Axes, panel: Mapping[str, Any], answers: Sequence[Answer]) -> None:
    """Coloured bands."""
    series = [(answer.name(one["metric"]), one) for answer in answers for one in answer.series]
    for row, (_, one) in enumerate(series):
        points = [(float(t), float(v)) for t, v in one["values"]]
        for (began, value), (ended, _) in itertools.pairwise(points):
            color = COLORS["green"] if value else COLORS["red"]
            span = dates([began, ended])
            axes.barh(row, span[1] - span[0], left=span[0], height=0.6, color=color, alpha=0.75)
    _over_time(axes, None)
    axes.set_yticks(range(len(series)), [name.split()[-1] for name, _ in series])
    axes.set_ylim(-0.7, len(series) - 0.3)
    axes.grid(visible=False)


def density(axes: Axes, panel: Mapping[str, Any], answers: Sequence[Answer]) -> None:
    """A histogram over time, from cumulative buckets."""
    series = sorted(answers[0].series, key=lambda one: float(one["metric"]["le"]))
    bounds = [float(one["metric"]["le"]) for one in series]
    times = [float(t) for t, _ in series[0]["values"]]
    cumulative = np.array([[float(v) for _, v in one["values"]][: len(times)] for one in series])
    counts = np.diff(cumulative, axis=0, prepend=0)
    used = np.flatnonzero(counts.max(axis=1) > 0)
    low, high = used.min(), used.max() + 1
    masked = np.ma.masked_less_equal(counts[low:high], 0)
    edges = np.arange(high - low + 1)
    days = dates(times)
    axes.pcolormesh([*days, 2 * days[-1] - days[-2]], edges, masked, cmap="turbo", norm=LogNorm())
    names = ["0" if low == 0 else shown(bounds[low - 1], "s")]
    names += [shown(bound, "s") if math.isfinite(bound) else "∞" for bound in bounds[low:high]]
    every = max(1, len(edges) // 6)
    _over_time(axes, None)
    axes.set_yticks(edges[::every], names[::every])
    axes.grid(visible=False)
    axes.set_xlim(days[0], days[-1])


def bars(axes: Axes, panel: Mapping[str, Any], answers: Sequence[Answer]) -> None:
    """A bar for each sample."""
    defaults = panel["fieldConfig"]["defaults"]
    samples = sorted(
        (answers[0].name(one["metric"]), float(one["value"][1])) for one in answers[0].series
    )
    axes.axis("off")
    most = max(value for _, value in samples)
    for row, (name, value) in enumerate(samples):
        color = PALETTE[row % len(PALETTE)]
        axes.barh(-row, value / most, height=0.5, color=color, alpha=0.8)
        axes.text(0, -row + 0.33, name, color=TEXT, fontsize=7, va="bottom")
        text = shown(value, defaults["unit"], defaults.get("decimals"))
        axes.text(1.03, -row, text, color=color, fontsize=8, va="center")
    axes.set(xlim=(0, 1.32), ylim=(-len(samples) + 0.4, 0.75))


def table(axes: Axes, panel: Mapping[str, Any], answers: Sequence[Answer]) -> None:
    """A row for each model."""
    axes.axis("off")
    units = {
        override["matcher"]["options"]: {p["id"]: p["value"] for p in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }
    first = [("model", "none"), ("engine", "none"), ("precision", "none")]
    by_model: dict[str, dict[str, str]] = {}
    for answer in answers:
        unit = units.get(answer.legend, {"unit": "none", "decimals": 0})
        for one in answer.series:
            row = by_model.setdefault(one["metric"]["model"], {})
            row |= {name: one["metric"][name] for name, _ in first if name in one["metric"]}
            row[answer.legend] = shown(float(one["value"][1]), unit["unit"], unit["decimals"])
    columns = [name for name, _ in first] + [answer.legend for answer in answers]
    places = np.linspace(0.01, 0.93, len(columns))
    for line, row in enumerate([{name: name for name in columns}, *by_model.values()]):
        for place, name in zip(places, columns, strict=True):
            style = {"color": FAINT, "weight": "bold"} if line == 0 else {"color": TEXT}
            axes.text(place, 0.9 - 0.17 * line, row.get(name, ""), fontsize=8, va="center", **style)


def points(axes: Axes, panel: Mapping[str, Any], answers: Sequence[Answer]) -> None:
    """A point for each model: the first query across, the second up."""
    across, up = (
        {one["metric"]["model"]: float(one["value"][1]) for one in answer.series}
        for answer in answers
    )
    for row, model in enumerate(sorted(up)):
        axes.scatter(across[model], up[model], s=60, color=PALETTE[row], zorder=3)
        axes.annotate(
            model, (across[model], up[model]), xytext=(0, 8), textcoords="offset points",
            color=TEXT, fontsize=7, ha="center",
        )  # fmt: skip
    axes.set_ylim(0, 1.25 * max(up.values()))
    axes.margins(x=0.25)
    axes.grid(visible=True, color=EDGE, linewidth=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: shown(v, "percentunit")))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: shown(v, "s")))
    axes.tick_params(colors=FAINT, labelsize=6.5, length=0)
    axes.set_xlabel(answers[0].legend, color=FAINT, fontsize=7)
    axes.set_ylabel(answers[1].legend, color=FAINT, fontsize=7)


def dates(times: Sequence[float]) -> Any:
    """Unix times as matplotlib's dates."""
    return mdates.date2num([datetime.fromtimestamp(t, UTC) for t in times])


def _over_time(axes: Axes, unit: str | None) -> None:
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=EDGE, linewidth=0.5)
    axes.tick_params(colors=FAINT, labelsize=6.5, length=0)
    axes.xaxis.set_major_locator(mdates.AutoDateLocator(maxticks=5))
    axes.xaxis.set_major_formatter(mdates.DateFormatter("%H:%M:%S"))
    axes.margins(x=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if unit is not None:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: shown(v, unit)))


KINDS: Mapping[str, Callable[[Axes, Mapping[str, Any], Sequence[Answer]], None]] = {
    "timeseries": lines,
    "stat": number,
    "state-timeline": states,
    "heatmap": density,
    "bargauge": bars,
    "table": table,
    "xychart": points,
}
"""The type of a panel to what draws it."""
