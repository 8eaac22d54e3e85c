"""The figures of a run with deadlines: what came in time, which variants answered, why some were refused."""

from collections import Counter
from collections.abc import Mapping
from operator import attrgetter, itemgetter
from typing import Any

from rootserve.client.load.report import LoadResult
from rootserve.client.report import axes, charts
from rootserve.client.report.charts import Bar, Plane
from rootserve.client.report.columns import Column, accuracy, mix_text
from rootserve.client.report.figures import (
    TIME,
    Figure,
    keys,
    lines_of,
    parts_of,
    spans_of,
)
from rootserve.client.report.seconds import Interval, intervals
from rootserve.client.report.words import rounded
from rootserve.client.units import count, percent

# As many as there are colours; the others are drawn as one.
_COLOURS = 6
_OTHERS = "others"


def over_time(run: LoadResult) -> list[Figure[Interval]]:
    """Attainment and accuracy-goodput over the run."""
    if not run.attained or not run.time_series:
        return []
    found = [each for each in intervals(run.time_series, run.time_step_s) if each.phase != "after"]
    columns = [
        TIME,
        Column[Interval]("due", attrgetter("due"), count),
        Column[Interval]("in time", attrgetter("in_time"), count),
        Column[Interval]("attainment", lambda each: _share(each, each.in_time), percent, "p50"),
    ]
    if run.attained.accuracy_goodput is not None:
        columns.append(
            Column[Interval](
                "accuracy-goodput",
                lambda each: _share(each, each.accuracy_in_time),
                accuracy,
                "p99",
            )
        )
    lines = lines_of(columns, found, attrgetter("middle"), attrgetter("name"))
    heights = [y for line in lines for _, y in line.points if y is not None]
    if not heights:
        return []
    x = axes.linear("seconds since the start", [found[-1].end], rounded, most_ticks=8, exact=True)
    y = axes.of_shares("of the requests due", heights)
    spans = spans_of(found)
    return [
        Figure(
            "Attainment over time",
            "Of the requests due in each second, the share answered within their deadline, and the sum of "
            "the accuracies of those over all due. Refused and expired requests are in what was due.",
            f"Attainment {percent(run.attained.attainment)} of the whole run; "
            f"{percent(min(heights))} at the lowest.",
            lambda label, width: charts.lines(label, Plane(x, y, width, 220), lines, spans),
            found,
            columns,
            keys(columns, "line "),
        )
    ]


def _share(each: Interval, value: float) -> float | None:
    return value / each.due if each.due else None


def variants(run: LoadResult) -> list[Figure[Any]]:
    """Which variants of a family answered: of the whole run, and over it."""
    if not run.attained or not run.attained.variants:
        return []
    often = sorted(run.attained.variants.items(), key=lambda item: -item[1])
    total = sum(run.attained.variants.values())
    styles = {name: f"variant-{n}" for n, (name, _) in enumerate(often[:_COLOURS])}
    columns = [
        Column[tuple[str, int]]("variant", itemgetter(0)),
        Column[tuple[str, int]]("answers", itemgetter(1), count),
        Column[tuple[str, int]]("share", lambda row: row[1] / total, lambda share: f"{share:.1%}"),
    ]
    bars = []
    for row in often:
        name, number, share = (column.text(row) for column in columns)
        part = (styles.get(name, "unfinished"), row[1], f"{name}: {number}")
        bars.append(Bar(name, f"{number} ({share})", [part]))
    summary = mix_text(run.attained.variants)
    figures: list[Figure[Any]] = [
        Figure(
            "Variants that answered",
            "Answered requests by the variant that computed them.",
            summary,
            lambda label, width: charts.bars(label, width, bars, often[0][1]),
            often,
            columns,
        )
    ]
    return [*figures, *_variants_over_time(run, styles)]


def _variants_over_time(run: LoadResult, styles: Mapping[str, str]) -> list[Figure[Interval]]:
    every = intervals(run.time_series, run.time_step_s)
    found = [each for each in every if each.variants]
    if len(found) < 2:
        return []
    columns = [TIME, *(_answers(name, style) for name, style in styles.items())]
    if any(name not in styles for each in found for name in each.variants):
        columns.append(
            Column[Interval](
                _OTHERS,
                lambda each: _total(each, styles)[_OTHERS],
                count,
                "unfinished",
            )
        )
    bars = [
        (each.second, each.end, Bar("", "", parts_of(columns, each, f" at {each.name}")))
        for each in found
    ]
    x = axes.linear("seconds since the start", [every[-1].end], rounded, most_ticks=8, exact=True)
    y = axes.linear("answers", [sum(each.variants.values()) for each in found], rounded)
    return [
        Figure(
            "Variants over time",
            "Answers in each second by the variant that computed them.",
            f"Answers of {', '.join(styles)} in each second.",
            lambda label, width: charts.stacks(label, Plane(x, y, width, 220), bars),
            found,
            columns,
            keys(columns),
        )
    ]


def _answers(name: str, style: str) -> Column[Interval]:
    return Column(name, lambda each: each.variants.get(name, 0), count, style)


def _total(each: Interval, styles: Mapping[str, str]) -> Counter[str]:
    """Answers by variant, those without a colour together."""
    found: Counter[str] = Counter()
    for name, number in each.variants.items():
        found[name if name in styles else _OTHERS] += number
    return found


def reasons(run: LoadResult) -> list[Figure[tuple[str, int]]]:
    """Why requests were refused, where the server tells more than a status code."""
    if not run.reasons.keys() - run.errors.keys():
        return []
    found = sorted(run.reasons.items(), key=lambda item: -item[1])
    columns = [
        Column[tuple[str, int]]("reason", itemgetter(0)),
        Column[tuple[str, int]]("requests", itemgetter(1), count),
    ]
    bars = [
        Bar(reason, count(number), [("code-0", number, f"{reason}: {count(number)}")])
        for reason, number in found
    ]
    return [
        Figure(
            "Reasons",
            "Refused and failed requests by the reason that the server told, or their status code.",
            "; ".join(f"{bar.name} {bar.text}" for bar in bars),
            lambda label, width: charts.bars(label, width, bars, found[0][1]),
            found,
            columns,
        )
    ]
