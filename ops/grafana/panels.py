"""How a panel of the dashboard looks: one function per kind, so that like is drawn alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
    xychart,
)
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as parts
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.xychart import SeriesMapping, XYShowMode

DATASOURCE = parts.DataSourceRef(type_val="prometheus", uid="rootserve-prometheus")
GREEN, ORANGE, RED = "green", "orange", "red"
IMAGES, ROWS, BATCHES, TIMES = "suffix: img/s", "suffix: rows", "suffix: batches/s", "suffix: times"
"""Units that Grafana has no name for."""


@dataclass(frozen=True, slots=True)
class About:
    """What every panel says of itself. ``empty`` is what it shows, and why, when it has no data."""

    title: str
    description: str
    unit: str
    empty: str
    width: int = 8
    height: int = 7


Queries = Mapping[str, str]
"""Legend to PromQL."""
Steps = Sequence[tuple[float, str]]
"""From which value on a value has which colour; below the first one it is green."""


def lines(
    about: About,
    queries: Queries,
    *,
    stacked: bool = False,
    exemplars: bool = False,
    most: float | None = None,
    limit: float | None = None,
) -> timeseries.Panel:
    """Values over time. ``limit`` draws a red line; ``most`` ends the axis."""
    panel = _described(timeseries.Panel(), about)
    panel.min(0).line_width(1.5).fill_opacity(40 if stacked else 8)
    panel.show_points(look.VisibilityMode.NEVER)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(look.LegendDisplayMode.LIST)
        .placement(look.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )
    panel.tooltip(
        common.VizTooltipOptions()
        .mode(look.TooltipDisplayMode.MULTI)
        .sort(look.SortOrder.DESCENDING)
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(look.StackingMode.NORMAL).group("A"))
    if most is not None:
        panel.max(most)
    if limit is not None:
        panel.thresholds(_thresholds([(limit, RED)]))
        style = common.GraphThresholdsStyleConfig().mode(look.GraphThresholdsStyleMode.DASHED)
        panel.thresholds_style(style)
    for query in _targets(queries):
        panel.with_target(query.range().exemplar(exemplars))
    return panel


def number(about: About, query: str, steps: Steps = (), decimals: int = 0) -> stat.Panel:
    """One figure in large, with its course behind it."""
    panel = _described(stat.Panel(), about)
    panel.decimals(decimals).thresholds(_thresholds(steps))
    panel.graph_mode(look.BigValueGraphMode.AREA).color_mode(look.BigValueColorMode.VALUE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    (target,) = _targets({"": query})
    return panel.with_target(target.range())


def yes_or_no(about: About, query: str, yes: str, no: str) -> stat.Panel:
    """One figure that is 1 or 0, in words."""
    panel = number(about, query).graph_mode(look.BigValueGraphMode.NONE)
    return panel.mappings(_words(yes, no))


def states(about: About, queries: Queries, yes: str, no: str) -> statetimeline.Panel:
    """Figures that are 1 or 0 over time, as coloured bands."""
    panel = _described(statetimeline.Panel(), about)
    panel.mappings(_words(yes, no)).show_value(look.VisibilityMode.NEVER).fill_opacity(70)
    panel.color_scheme(FieldColor().mode(parts.FieldColorModeId.THRESHOLDS))
    for query in _targets(queries):
        panel.with_target(query.range())
    return panel


def density(about: About, query: str) -> heatmap.Panel:
    """A histogram over time."""
    panel = _described(heatmap.Panel(), about)
    panel.color(
        heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Turbo").steps(64)
    )
    panel.y_axis(heatmap.YAxisConfig().unit(about.unit)).show_legend()
    panel.cell_values(heatmap.CellValues().unit("suffix: answers").decimals(0))
    (target,) = _targets({"{{le}}": query})
    return panel.with_target(target.range().format(PromQueryFormat.HEATMAP))


def bars(about: About, query: str, decimals: int) -> bargauge.Panel:
    """A bar for each model."""
    panel = _described(bargauge.Panel(), about)
    panel.min(0).decimals(decimals).orientation(look.VizOrientation.HORIZONTAL)
    panel.display_mode(look.BarGaugeDisplayMode.BASIC)
    panel.color_scheme(FieldColor().mode(parts.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    (target,) = _targets({"{{model}}": query})
    return panel.with_target(target.instant())


def columns(about: About, queries: Queries, units: Mapping[str, tuple[str, int]]) -> table.Panel:
    """A row for each model, a column for each query; ``units`` also tells how many decimals."""
    panel = _described(table.Panel(), about)
    for query in _targets(queries):
        panel.with_target(query.instant().format(PromQueryFormat.TABLE))
    _join(panel, {f"Value #{_ref(n)}": name for n, name in enumerate(queries)})
    for name, (unit, decimals) in units.items():
        panel.override_by_name(
            name,
            [
                parts.DynamicConfigValue("unit", unit),
                parts.DynamicConfigValue("decimals", decimals),
            ],
        )
    return panel


def points(about: About, x: tuple[str, str], y: tuple[str, str]) -> xychart.Panel:
    """A point for each model; ``x`` and ``y`` are name and query."""
    panel = _described(xychart.Panel(), about)
    panel.mapping(SeriesMapping.AUTO).show(XYShowMode.POINTS)
    panel.point_size(xychart.XychartFieldConfigPointSize().fixed(12))
    for query in _targets(dict((x, y))):
        panel.with_target(query.instant().format(PromQueryFormat.TABLE))
    _join(panel, {"Value #A": x[0], "Value #B": y[0]})
    return panel.override_by_name(x[0], [parts.DynamicConfigValue("unit", "percentunit")])


def _described(panel: Any, about: About) -> Any:
    panel.title(about.title).description(about.description).unit(about.unit)
    panel.no_value(about.empty).datasource(DATASOURCE)
    return panel.span(about.width).height(about.height)


def _ref(position: int) -> str:
    return chr(ord("A") + position)


def _targets(queries: Queries) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery()
        .expr(query)
        .legend_format(legend)
        .ref_id(_ref(position))
        .datasource(DATASOURCE)
        for position, (legend, query) in enumerate(queries.items())
    ]


def _join(panel: Any, names: Mapping[str, str]) -> None:
    """One row for each model, of tables that have a column "model"."""
    join = {"byField": "model", "mode": "outer"}
    panel.with_transformation(parts.DataTransformerConfig(id_val="joinByField", options=join))
    times = [f"Time {n}" for n in range(1, len(names) + 1)]
    organize = {
        "excludeByName": dict.fromkeys(["Time", *times], True),
        "renameByName": dict(names),
    }
    panel.with_transformation(parts.DataTransformerConfig(id_val="organize", options=organize))


def _thresholds(steps: Steps) -> ThresholdsConfig:
    first = parts.Threshold(value=None, color=GREEN)
    rest = [parts.Threshold(value=value, color=color) for value, color in steps]
    return ThresholdsConfig().mode(parts.ThresholdsMode.ABSOLUTE).steps([first, *rest])


def _words(yes: str, no: str) -> list[parts.ValueMapping]:
    words = {
        "1": parts.ValueMappingResult(text=yes, color=GREEN),
        "0": parts.ValueMappingResult(text=no, color=RED),
    }
    return [parts.ValueMap(options=words)]
