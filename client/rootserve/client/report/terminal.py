"""What `rootserve load` and `rootserve compare` print, within 80 columns."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from textwrap import fill
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rootserve.client.load.comparison import limits_text, unlike_limits
from rootserve.client.load.objective import Goals, judge
from rootserve.client.load.report import LoadResult, Report
from rootserve.client.load.statistics import Ratio
from rootserve.client.report.columns import (
    ATTAINED,
    PART,
    RATIOS,
    RUN,
    TIMES,
    Column,
    accuracy,
    mix_text,
    pick,
    ratio_text,
    stage_column,
)
from rootserve.client.report.words import run_words
from rootserve.client.stages import STAGES
from rootserve.client.tables import figures_table, separate
from rootserve.client.units import count, percent

T = TypeVar("T")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*( (?:µs|ms|s)\b)?")
_STAGE_LETTERS = 9
# Whose stages are shown.
_SHOWN = {"mean": "mean", "p99": "at p99"}


def print_load(screen: Console, result: LoadResult) -> None:
    """Everything a load run measured."""
    screen.print(f"[bold]{escape(result.model)}[/], {escape(run_words(result))}")
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column()
    facts.add_column(justify="right")
    facts.add_column()
    facts.add_row("throughput", f"[bold]{result.throughput_rows_per_s:,.1f}[/]", "rows/s")
    facts.add_row("", f"{result.throughput_requests_per_s:,.1f}", "requests/s")
    facts.add_row(
        "requests", count(result.requests), f"in {result.window_s:.1f} s{_stable(result)}"
    )
    for code, number in result.errors.items():
        facts.add_row("[red]failed[/]", f"[red]{count(number)}[/]", f"[red]{escape(code)}[/]")
    if result.unfinished:
        facts.add_row("[red]unfinished[/]", f"[red]{count(result.unfinished)}[/]", "never answered")
    screen.print(facts)
    _print_attained(screen, result)

    separate(screen)
    columns = pick(TIMES, "p50", "p90", "p99", "p99.9", "mean", "max")
    times = {"response": result.response_time_s, "service": result.service_time_s}
    _print_table(screen, "time", columns, times.items())
    _print_stages(screen, result)
    for title, parts in (("model", result.by_model), ("server", result.by_server)):
        if len(parts) > 1:
            separate(screen)
            columns_of_part: list[Column[Any]] = pick(
                PART, "rows/s", "requests", "failed", "p50", "p99"
            )
            if result.attained:
                columns_of_part += pick(ATTAINED, "attained")
            _print_table(screen, title, columns_of_part, ((part.name, part) for part in parts))
    if result.loop == "closed":
        screen.print(
            "closed loop: while the server is slow nobody sends, so users would wait longer "
            "than this; --rate measures that",
            style="dim",
        )
    print_warnings(screen, result)


def _print_attained(screen: Console, result: LoadResult) -> None:
    """What was kept of deadlines and floors."""
    found = result.attained
    if found is None:
        return
    separate(screen)
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column()
    facts.add_column(justify="right")
    facts.add_column()
    facts.add_row(
        "attainment",
        f"[bold]{percent(found.attainment)}[/]",
        f"answered in time, of {count(result.requests)} due",
    )
    facts.add_row("", percent(found.attainment_from_arrival), "by the server's clock, from arrival")
    if found.accuracy_goodput is not None:
        goodput = accuracy(found.accuracy_goodput)
        facts.add_row(
            "accuracy-goodput", f"[bold]{goodput}[/]", "accuracies of those, over all due"
        )
    if found.mean_accuracy is not None:
        facts.add_row("accuracy", accuracy(found.mean_accuracy), "mean of those in time")
    facts.add_row("late", count(found.late), "answered, and after their deadline")
    facts.add_row("promises broken", count(found.promises_broken), "admitted, and late or dropped")
    if found.below_floor:
        facts.add_row(
            "[red]below floor[/]", f"[red]{count(found.below_floor)}[/]", "[red]answered[/]"
        )
    for reason, number in result.reasons.items():
        if reason not in result.errors:  # the others are told by their code
            facts.add_row("refused", count(number), escape(reason))
    screen.print(facts)
    if found.variants:
        screen.print(f"variants: {mix_text(found.variants)}", markup=False)


def _print_stages(screen: Console, result: LoadResult) -> None:
    found = result.stages_by_percentile_s
    if not found:
        return
    rows = {title: found[name] for name, title in _SHOWN.items() if name in found}
    # Wrapped, so that all of them fit.
    columns = [
        replace(stage_column(stage), name=fill(stage.title, _STAGE_LETTERS))
        for stage in STAGES
        if stage.within is None
    ]
    batch = Column[Mapping[str, float]](
        "batch",
        lambda stages: f"{result.mean_batch_rows or 0:.1f}" if stages is rows["mean"] else "",
    )
    separate(screen)
    _print_table(screen, "stage", [*columns, batch], rows.items())
    for part in STAGES:
        if part.within and any(stages.get(part.name) for stages in rows.values()):
            column = stage_column(part)
            times = ", ".join(f"{title} {column.text(stages)}" for title, stages in rows.items())
            screen.print(f"{part.within}, of which {part.title}: {times}")


def _print_table(
    screen: Console, title: str, columns: Sequence[Column[T]], rows: Iterable[tuple[str, T]]
) -> None:
    """A table of rows `(name, what the columns are of)`."""
    table = figures_table(screen, title, *(column.name for column in columns))
    for name, row in rows:
        table.add_row(escape(name), *(escape(column.text(row)) for column in columns))
    screen.print(table)


def print_campaign(screen: Console, report: Report) -> None:
    """The runs of a campaign as a table, and what they say together."""
    length_s = report.options["duration_s"]
    screen.print(f"[bold]{escape(report.model)}[/], {len(report.levels)} runs of {length_s:g} s")
    kept = any(run.attained for run in report.levels)
    columns = pick(RUN, "run", "rows/s", "p50", "p99", *([] if kept else ["p99.9"]), "failed")
    columns += pick(ATTAINED, "attained", "goodput") if kept else pick(RUN, "batch")
    goal = report.objective
    objective = ("objective",) if goal else ()
    table = figures_table(screen, *(column.name for column in columns), *objective)
    for run in report.levels:
        cells = [escape(column.text(run)) for column in columns]
        if goal is not None:
            verdict = judge(run, Goals(goal.p99_s, goal.attainment))
            sure = "[green]met[/]" if verdict.met else "[red]missed[/]"
            cells.append(sure if verdict.decided else "[yellow]too few[/]")
        table.add_row(*cells)
    screen.print(table)
    if report.pairs:
        separate(screen)
        ratios = figures_table(screen, "B / A", "ratio", "95 % interval", "", left=1)
        for key, ratio in report.pairs.ratios.items():
            ratios.add_row(RATIOS[key].partition(" ")[0], *ratio_cells(ratio))
        screen.print(ratios)
    if report.interrupted:
        runs = f"{len(report.levels)} run{'s' if len(report.levels) > 1 else ''}"
        screen.print(f"warning: interrupted after {runs}", style="yellow")
    for doubt in common_warnings(report.levels):
        screen.print(f"warning: {doubt}", style="yellow", markup=False)


def print_limits(screen: Console, report: Report) -> None:
    """How large the server makes batches, and a warning where that differs between A and B."""
    if unlike := unlike_limits(report):
        screen.print(f"warning: {unlike}", style="yellow", markup=False)
    elif limits := limits_text(report):
        screen.print(
            f"largest batches, as the server measured: {limits}", style="dim", markup=False
        )


def ratio_cells(ratio: Ratio | None) -> tuple[str, str, str]:
    """A ratio, its interval, and whether they differ."""
    if ratio is None:
        return "-", "-", ""
    if ratio.low is None or ratio.high is None:
        return ratio_text(ratio.ratio), "-", ""
    verdict = ("higher" if ratio.ratio > 1 else "lower") if ratio.differs else "no difference seen"
    return ratio_text(ratio.ratio), f"{ratio_text(ratio.low)} to {ratio_text(ratio.high)}", verdict


def print_warnings(screen: Console, result: LoadResult) -> None:
    """What casts doubt on the figures."""
    for doubt in result.warnings:
        screen.print(f"warning: {doubt}", style="yellow", markup=False)


def common_warnings(runs: Sequence[LoadResult]) -> list[str]:
    """What casts doubt on the figures of several runs; what is the same but for numbers is told once."""
    found: dict[str, list[tuple[str, str]]] = {}
    for run in runs:
        for doubt in run.warnings:
            found.setdefault(_NUMBER.sub("", doubt), []).append((run.label, doubt))
    told = []
    for alike in found.values():
        label, doubt = alike[-1]
        which = label if len(alike) == 1 else f"{len(alike)} of {len(runs)} runs, the last {label}"
        told.append(f"{which}: {doubt}")
    return told


def _stable(result: LoadResult) -> str:
    if not result.stable:
        return ""
    counted = sum(trial.counted for trial in result.trials)
    return f", the last {counted} of {len(result.trials)} windows"
