"""`rootserve compare`: two load reports side by side."""

import json
from pathlib import Path

import msgspec

from rootserve.client.load.comparison import Comparison, compare, differences
from rootserve.client.load.report import read_report
from rootserve.client.report.terminal import ratio_cells
from rootserve.client.tables import console, figures_table
from rootserve.client.units import duration


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
        values = [
            "-" if value is None else duration(value) if figure.is_time else f"{value:,.1f}"
            for value in (figure.a, figure.b)
        ]
        table.add_row(figure.name, *values, *ratio_cells(figure.ratio))
    screen.print(table)
    if comparison.no_interval:
        screen.print(f"no interval: {comparison.no_interval}", style="yellow", markup=False)
