"""The figures of a report of several runs: a sweep, a search for the highest rate, pairs of A and B."""

from collections.abc import Sequence
from operator import attrgetter, itemgetter
from typing import Any

from rootserve.client.load.report import FindMax, LoadResult, Report, Step
from rootserve.client.load.statistics import Ratio
from rootserve.client.report import axes, charts
from rootserve.client.report.charts import Plane, Series, Span
from rootserve.client.report.columns import ATTAINED, RATIOS, RUN, Column, pick, ratio_text
from rootserve.client.report.figures import Figure, keys, lines_of
from rootserve.client.report.words import rounded, tick_time
from rootserve.client.units import duration, percent

_RUN = [column for column in RUN if column.name != "batch"]


def _columns(runs: Sequence[LoadResult]) -> list[Column[LoadResult]]:
    """Of runs in a table."""
    return [*_RUN, *(ATTAINED if any(run.attained for run in runs) else ())]


_HELD = {True: "held", False: "missed", None: "too few requests"}


_IN_ORDER = (
    "One point for each run, in the order of what was offered: a run that something else slowed down is a "
    "dent in its place."
)


def over_load(report: Report) -> list[Figure[LoadResult]]:
    """Of a sweep: response time and answers over what was offered, a point for each level."""
    levels = sorted(report.levels, key=_offered)
    if len(levels) < 2 or report.kind != "sweep":
        return []
    unit = "callers" if levels[0].concurrency is not None else "requests/s offered"
    x = axes.of_times(unit, [_offered(run) for run in levels], rounded)
    return [_times_over_load(report, levels, x), _answers_over_load(levels, x)]


def _times_over_load(
    report: Report, levels: Sequence[LoadResult], x: axes.Axis
) -> Figure[LoadResult]:
    drawn = pick(RUN, "p50", "p99")
    lines = lines_of(
        drawn, levels, _offered, lambda run: f"{run.label}, {run.throughput_rows_per_s:,.1f} rows/s"
    )
    times = [time for line in lines for _, time in line.points if time is not None]
    goal_s = report.objective.p99_s if report.objective else None
    goals = [] if goal_s is None else [goal_s]
    y = axes.of_times("response time", [*times, *goals], tick_time)
    lines += [_objective(goal, x) for goal in goals]
    ends = "; ".join(
        f"p99 {duration(run.response_time_s.p99)} with {run.label}"
        for run in (levels[0], levels[-1])
    )
    return Figure(
        "Response time over the load",
        f"{_IN_ORDER} Where the lines turn up, more load only makes callers wait.",
        ends,
        lambda label, width: charts.lines(label, Plane(x, y, width, 300), lines),
        levels,
        _columns(levels),
        [*keys(drawn, "line "), *(_objective_key(goal) for goal in goals)],
    )


def _answers_over_load(levels: Sequence[LoadResult], x: axes.Axis) -> Figure[LoadResult]:
    rates = [run.throughput_requests_per_s for run in levels]
    answered = Series(
        "answered",
        "answered",
        [(_offered(run), rate) for run, rate in zip(levels, rates, strict=True)],
        [f"{run.label}: {rate:,.1f}/s answered" for run, rate in zip(levels, rates, strict=True)],
    )
    legend = [("line answered", "answered")]
    lines, tops = [answered], list(rates)
    caption = "Requests answered per second. Where the line turns flat is what the server can do."
    if levels[0].concurrency is None:
        dues = [(_offered(run), _offered(run)) for run in levels]
        lines.insert(0, Series("offered", "due", dues, marked=False))
        legend.insert(0, ("line due", "as much as was offered"))
        tops += [_offered(run) for run in levels]
        caption = (
            "Requests answered per second, beside those offered. Where the two part, the server or the "
            "client falls behind."
        )
    y = axes.linear("requests/s answered", tops, rounded)
    best = max(levels, key=lambda run: run.throughput_rows_per_s)
    return Figure(
        "Answers over the load",
        caption,
        f"The highest throughput is {best.throughput_rows_per_s:,.1f} rows/s, with {best.label}.",
        lambda label, width: charts.lines(label, Plane(x, y, width, 240), lines),
        legend=legend,
    )


def _offered(run: LoadResult) -> float:
    """Callers, or requests per second that were asked for."""
    asked = run.rate if run.concurrency is None else run.concurrency
    return float(asked) if isinstance(asked, int | float) else 0.0


def _objective(goal: float, x: axes.Axis) -> Series:
    ends = [(x.low, goal), (x.high, goal)]
    return Series(f"objective {duration(goal)}", "objective", ends, marked=False)


def _objective_key(goal: float) -> tuple[str, str]:
    return "line objective", f"objective: {duration(goal)}"


def search(report: Report) -> list[Figure[Step]]:
    """The steps of a search for the highest rate that holds an objective."""
    found = report.find_max
    if not found:
        return []
    steps = found.steps
    x = axes.linear("requests/s asked", [step.rate for step in steps], rounded)
    judged, y, goal = _judged_by(found)
    series = []
    for held, style in ((True, "ok"), (False, "p99"), (None, "unfinished")):
        chosen = [step for step in steps if step.held is held]
        series.append(
            Series(
                _HELD[held],
                style,
                # A p99 that is not known is beyond what is drawn: at the top.
                [
                    (step.rate, y.high if (at := judged.value(step)) is None else at)
                    for step in chosen
                ],
                [f"{step.rate:,.1f}/s {_HELD[held]}: {judged.text(step)}" for step in chosen],
                joined=False,
            )
        )
    legend = [(f"fill {each.style}", each.name) for each in series[:2]]
    interval = []
    if found.low is not None and found.high is not None:
        interval.append(Span(max(x.low, found.low), min(x.high, found.high), "95 % interval"))
        legend.append(("fill span", "95 % interval of the limit"))
    if series[2].points:
        legend.append(("fill unfinished", "too few requests to judge"))
    named_goal = f"objective {judged.form(goal)}"
    series.append(Series(named_goal, "objective", [(x.low, goal), (x.high, goal)], marked=False))

    def level(step: Step) -> LoadResult:
        return report.levels[step.level]

    run, *figures = (column.of(level) for column in _columns(report.levels))
    return [
        Figure(
            "The search for the highest rate",
            found.text,
            found.text,
            lambda label, width: charts.lines(label, Plane(x, y, width, 260), series, interval),
            steps,
            [
                run,
                judged,
                Column("objective", lambda step: _HELD[step.held]),
                *figures,
            ],
            [*legend, ("line objective", named_goal.replace(" ", ": ", 1))],
        )
    ]


def _judged_by(found: FindMax) -> tuple[Column[Step], axes.Axis, float]:
    """What steps are drawn by, its axis, and its objective: the p99 if there is one, else the attainment."""
    if found.objective_p99_s is not None:
        by_p99 = Column[Step]("p99 of all", attrgetter("p99_s"), duration)
        known = [step.p99_s for step in found.steps if step.p99_s is not None]
        y = axes.of_times("p99 of all requests", [*known, found.objective_p99_s], tick_time)
        return by_p99, y, found.objective_p99_s
    goal = found.objective_attainment or 1.0
    by_attainment = Column[Step]("attainment", attrgetter("attainment"), percent)
    shares = [step.attainment for step in found.steps if step.attainment is not None]
    return by_attainment, axes.of_shares("attainment", [*shares, goal]), goal


def pairs(report: Report) -> list[Figure[Any]]:
    """Ratios of B to A with their intervals."""
    found = report.pairs
    if not found:
        return []
    rows = [(name, ratio) for key, name in RATIOS.items() if (ratio := found.ratios.get(key))]
    if not rows:
        return []
    ends = [end for _, ratio in rows for end in (ratio.ratio, ratio.low, ratio.high)]
    shown = [1.0, *(end for end in ends if end is not None)]
    x = axes.around(
        f"{found.b} over {found.a}", shown, lambda ratio: f"{round(ratio, 6):g}", least=0.05
    )
    places = [len(rows) - n - 0.5 for n in range(len(rows))]
    names = [name.partition(" ")[0] for name, _ in rows]
    y = axes.Axis("", 0, len(rows), list(zip(places, names, strict=True)))
    series = [Series("no difference", "objective", [(1.0, 0), (1.0, len(rows))], marked=False)]
    for (name, ratio), at in zip(rows, places, strict=True):
        if ratio.low is not None and ratio.high is not None:
            interval = [(ratio.low, at), (ratio.high, at)]
            series.append(Series("95 % interval", "p50", interval, marked=False))
        title = f"{name}: {_ratio(ratio)}"
        series.append(Series(name, "p50", [(ratio.ratio, at)], [title], joined=False))
    rounds = found.rounds
    return [
        Figure(
            f"{found.b} against {found.a}",
            f"Ratios over {rounds} round{'s' if rounds > 1 else ''} in which the two took turns: "
            "geometric mean and its 95 % interval. An interval that holds 1 shows no difference.",
            "; ".join(f"{name} {_ratio(ratio)}" for name, ratio in rows),
            lambda label, width: charts.lines(
                label, Plane(x, y, width, 60 + 40 * len(rows)), series
            ),
            rows,
            [
                Column[tuple[str, Ratio]]("figure", itemgetter(0)),
                *(
                    Column[Any](name, attrgetter(key), ratio_text).of(itemgetter(1))
                    for name, key in (("ratio", "ratio"), ("from", "low"), ("to", "high"))
                ),
            ],
        )
    ]


def _ratio(ratio: Ratio) -> str:
    if ratio.low is None:
        return ratio_text(ratio.ratio)
    return f"{ratio_text(ratio.ratio)} ({ratio_text(ratio.low)} to {ratio_text(ratio.high)})"
