"""What was simulated or planned as a terminal shows it, within 80 columns."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from rootserve.client.simulation.documents import Simulated, Simulation
from rootserve.client.simulation.planning import Option, Plan
from rootserve.client.simulation.summary import Summary
from rootserve.client.tables import figures_table
from rootserve.client.units import count, duration

_MOST_VARIANTS = 4


def print_simulation(screen: Console, simulation: Simulation) -> None:
    """A row for each policy, and which variants the first one took."""
    first = simulation.runs[0]
    workers = ", ".join(f"{number} on {kind}" for kind, number in simulation.workers.items())
    screen.print(
        f"{count(first.summary.offered)} requests in {first.summary.duration_s:.3g} s; workers: {workers}",
        markup=False,
    )
    heads = ("policy", "in time", "accuracy", "goodput", "refused", "broken", "p99", "rows")
    table = figures_table(screen, *heads)
    for run in simulation.runs:
        table.add_row(escape(run.policy), *_cells(run.summary))
    screen.print(table)
    screen.print()
    screen.print(
        "in time: of all that came. goodput: the accuracies of what was in time over all that came. "
        "broken: taken and not in time. p99: of all that came. rows: of a batch.",
        style="dim",
    )
    screen.print(f"{first.policy} computed {variants_of(first)}", markup=False)


def _cells(summary: Summary) -> Sequence[str]:
    accuracy = summary.mean_accuracy
    return (
        f"{summary.attainment:.2%}",
        "-" if accuracy is None else f"{accuracy:.4f}",
        f"{summary.accuracy_goodput:.4f}",
        f"{sum(summary.refused.values()):.2%}",
        f"{summary.broken_promises:.2%}",
        duration(summary.response_p99_s),
        f"{summary.mean_rows:.1f}",
    )


def variants_of(run: Simulated | Option) -> str:
    """The variants that computed most, with their shares of the rows."""
    rows = run.summary.rows_by_variant
    total = max(1, sum(rows.values()))
    most = list(rows.items())[:_MOST_VARIANTS]
    named = [f"{name} {number / total:.0%}" for name, number in most]
    return ", ".join(named + (["others"] if len(rows) > _MOST_VARIANTS else [])) or "nothing"


def print_plan(screen: Console, made: Plan) -> None:
    """A row for each number of workers, and what follows."""
    heads = ("workers", "on", "holds", "margin", "in time", "accuracy", "p99", "busy")
    table = figures_table(screen, *heads, left=3)
    for option in made.options:
        summary = option.summary
        table.add_row(
            count(option.workers),
            escape(option.kind or "its device"),
            "yes" if option.holds else "no",
            "-" if option.margin is None else f"{option.margin:.0%}",
            f"{summary.attainment:.2%}",
            f"{summary.mean_accuracy or 0.0:.4f}",
            duration(summary.response_p99_s),
            f"{summary.busy:.0%}",
        )
    if made.options:
        screen.print(table)
        screen.print()
    for option in made.options:
        if option.holds:
            screen.print(f"{option.workers} on {option.kind}: {variants_of(option)}", markup=False)
    screen.print(f"{made.recommendation}.", style="bold", markup=False)
