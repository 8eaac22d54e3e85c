"""What each layer costs as bars, one model against another: Fig. 15 of the paper's appendix."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rootserve.client.analysis.layers import Layer, Profile, Time
from rootserve.client.analysis.profile_report import COSTLY, measurement_words
from rootserve.client.units import count, duration, millions

_COLOURS = ("#1668b8", "#b0b5ba")
_WHISKER = "#333333"
_BAND = "#f4f6f8"
_GRID = "#e2e5e8"
_REST = "all others"
_FEW_ROWS = 20
_DPI = 150


@dataclass(frozen=True, slots=True)
class _Bars:
    """One model's bars in a panel: where each ends, and its quartiles where there are any."""

    values: Sequence[float]
    quartiles: Sequence[tuple[float, float] | None]


def profile_figure(profile: Profile, against: Profile | None = None) -> Figure:
    """Bars per layer: MACs, parameters, and time if it was measured.

    Args:
        profile: Of the model.
        against: Of another model with layers of the same names, such as the one without filter groups.
    """
    profiles = [profile] if against is None else [profile, against]
    names = [layer.name for layer in profile.layers if layer.kind in COSTLY]
    timed = any(each.measurement for each in profiles)
    few = len(names) <= _FEW_ROWS
    rows = [*names, *([_REST] if timed else [])]
    panels: list[tuple[str, Callable[[Profile], _Bars]]] = [
        (
            "multiply-accumulates, millions",
            lambda each: _costs(each, names, lambda x: x.macs / 1e6),
        ),
        ("parameters, thousands", lambda each: _costs(each, names, lambda x: x.params / 1e3)),
    ]
    if timed:
        panels.append((_time_label(profiles), lambda each: _times(each, names)))
    height = 1.35 + (0.36 if few else 0.175) * len(rows)
    figure = Figure(figsize=(2.2 + 3.1 * len(panels), height), dpi=_DPI, layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, (label, bars) in zip(axes, panels, strict=True):
        _frame(panel, label, rows)
        for position, each in enumerate(profiles):
            _draw(panel, bars(each), position, len(profiles))
    axes[0].set_yticks(
        range(len(rows)), [_row_words(name, profile) for name in rows], fontsize=8 if few else 6.5
    )
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    handles, _ = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        [_totals_words(each) for each in profiles],
        title="What each layer costs for one image",
        title_fontsize=11,
        loc="outside upper left",
        frameon=False,
        fontsize=8,
        alignment="left",
    )
    return figure


def _draw(panel: Axes, bars: _Bars, position: int, models: int) -> None:
    thickness = 0.72 / models
    rows = np.arange(len(bars.values)) + (position - (models - 1) / 2) * thickness
    panel.barh(
        rows, bars.values, thickness * 0.94, color=_COLOURS[position], label=str(position), zorder=2
    )
    spread = [(row, ends) for row, ends in zip(rows, bars.quartiles, strict=True) if ends]
    if spread:
        panel.hlines(
            [row for row, _ in spread],
            [low for _, (low, _) in spread],
            [high for _, (_, high) in spread],
            color=_WHISKER,
            linewidth=0.7,
            zorder=3,
        )


def _frame(panel: Axes, label: str, rows: Sequence[str]) -> None:
    panel.set_xlabel(label, fontsize=8)
    panel.tick_params(axis="x", labelsize=7, length=2, color="#888888")
    panel.tick_params(axis="y", length=0)
    panel.locator_params(axis="x", nbins=5)
    panel.grid(axis="x", color=_GRID, linewidth=0.8, zorder=0)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color("#888888")
    # Every other stage on a darker ground.
    start = 0
    for number, (_, group) in enumerate(groupby(rows, _stage)):
        length = len(list(group))
        if number % 2 == 0:
            panel.axhspan(start - 0.5, start + length - 0.5, color=_BAND, linewidth=0, zorder=-1)
        start += length


def _costs(profile: Profile, names: Sequence[str], value: Callable[[Layer], float]) -> _Bars:
    layers = {layer.name: layer for layer in profile.layers}
    values = [value(layers[name]) if name in layers else 0.0 for name in names]
    return _Bars(values, [None] * len(values))


def _times(profile: Profile, names: Sequence[str]) -> _Bars:
    """Milliseconds of the layers, and of everything else together."""
    if profile.measurement is None:
        return _Bars([], [])
    times = {layer.name: layer.time for layer in profile.layers if layer.time}
    shown: list[Time | None] = [times.get(name) for name in names]
    rest = [time for name, time in times.items() if name not in set(names)]
    rest_s = sum(time.median_s for time in [*rest, profile.measurement.other])
    values = [1e3 * time.median_s if time else 0.0 for time in shown]
    quartiles = [
        (1e3 * time.lower_quartile_s, 1e3 * time.upper_quartile_s) if time else None
        for time in shown
    ]
    return _Bars([*values, 1e3 * rest_s], [*quartiles, None])


def _time_label(profiles: Sequence[Profile]) -> str:
    measurement = next(each.measurement for each in profiles if each.measurement)
    batch = "" if measurement.rows == 1 else f" for {measurement.rows} images"
    words = measurement_words(measurement).split(", ")
    return f"milliseconds{batch}, {words[-1]} (line: quartiles)\n{', '.join(words[:-1])}"


def _totals_words(profile: Profile) -> str:
    macs = sum(layer.macs for layer in profile.layers)
    params = sum(layer.params for layer in profile.layers)
    words = f"{profile.model}: {millions(macs)} MACs, {count(params)} parameters"
    if profile.measurement:
        words += f", {duration(profile.measurement.total.median_s)}"
    return words


def _row_words(name: str, profile: Profile) -> str:
    groups = next((layer.groups for layer in profile.layers if layer.name == name), 1)
    return f"{name}, {groups} groups" if groups > 1 else name


def _stage(name: str) -> str:
    found = re.match(r"[a-z]+\d*", name)
    return found[0] if found else name
