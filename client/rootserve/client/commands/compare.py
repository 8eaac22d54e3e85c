"""`rootserve compare`: two load reports side by side."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rootserve.client.load.comparison import Comparison, compare, differences
from rootserve.client.load.report import read_report
from rootserve.client.report.columns import accuracy, rate
from rootserve.client.report.terminal import ratio_cells
from rootserve.client.tables import console, figures_table
from rootserve.client.units import count, duration, percent

# How a figure is written, by its unit.
_FORMS: Mapping[str, Callable[[Any], str]] = {
    "": rate,
    "share": percent,
    "accuracy": accuracy,
    "count": count,
}


def run(a: Path, b: Path, *, as_json: bool) -> None:
    """Print the ratio of each figure, with an interval where the reports tell one.

    Raises:
        InputError: One of them is no report.
    """
    reports = read_report(a), read_report(b)
    comparisons, different = compare(*reports), differences(*reports)
    if as_json:
        document = {"a": str(a), "b": str(b), "runs": comparisons, "differences": different}
        print(json.dumps(msgspec.to_builtins(document)))
        return
    screen = console()
    for name, path, report in (("A", a, reports[0]), ("B", b, reports[1])):
        label = report.label or report.kind
        text = f"{name}  {path}: {report.model}, {label}, {report.started_at[:19]}"
        screen.print(text, markup=False, soft_wrap=True)
    for comparison in comparisons:
        _print(comparison)
    if any(each.no_interval is None for each in comparisons):
        screen.print(
            "Intervals (95 %) are from how the figures varied within each run; its seconds tell that "
            "of p50 and p99 alone. What changed on the machine between the runs is not in it: "
            "'load --versus' takes turns for that.",
            style="dim",
        )
    for sentence in different:
        screen.print(f"differs: {sentence}", style="yellow", markup=False)


def _print(comparison: Comparison) -> None:
    screen = console()
    screen.print()
    screen.print(comparison.label, style="bold", markup=False)
    table = figures_table(screen, "", "A", "B", "B / A", "95 % interval", "")
    for figure in comparison.figures:
        form = duration if figure.is_time else _FORMS[figure.unit]
        values = ["-" if value is None else form(value) for value in (figure.a, figure.b)]
        table.add_row(figure.name, *values, *ratio_cells(figure.ratio))
    screen.print(table)
    if comparison.no_interval:
        screen.print(f"no interval: {comparison.no_interval}", style="yellow", markup=False)
