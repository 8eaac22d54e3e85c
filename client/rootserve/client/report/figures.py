"""The figures of a load report: which of its numbers are drawn, how, and what is said of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from rootserve.client.report import axes, charts
from rootserve.client.report.axes import Axis
from rootserve.client.report.charts import Bar, Plane, Series, Span
from rootserve.client.report.seconds import Interval, intervals
from rootserve.client.report.words import (
    PERCENTILES,
    STAGES,
    listed,
    percentile_name,
    rounded,
    tick_time,
)
from rootserve.client.units import count, duration

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing, for whatever width it gets, and the words beside it.

    Attributes:
        title: Its heading.
        caption: What is seen and how to read it.
        draw: Makes it for a width in pixels.
        legend: `(style, name)` of what is in it.
        head: Of the table with the same numbers.
        rows: Of that table.
    """

    title: str
    caption: str
    draw: Callable[[int], Element]
    legend: Sequence[tuple[str, str]]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def stages(report: Report) -> list[Figure]:
    """Where the time of fast and slow requests goes: as time, and as shares of it."""
    found = report.get("stages_by_percentile_s")
    if not found:
        return []
    names = [name for name in (*PERCENTILES, "mean") if found.get(name)]
    totals = {name: sum(found[name].values()) for name in names}
    longest = max(totals.values())

    def row(name: str, *, share: bool) -> Bar:
        whole = totals[name] or 1.0
        parts = [
            (
                f"stage-{stage}",
                found[name].get(stage, 0.0) / (whole if share else 1.0),
                f"{label}: {duration(found[name].get(stage, 0.0))}, "
                f"{found[name].get(stage, 0.0) / whole:.0%}",
            )
            for stage, label in STAGES.items()
        ]
        return Bar(percentile_name(name), duration(totals[name]), parts)

    shown = {
        stage: label for stage, label in STAGES.items() if any(found[n].get(stage) for n in names)
    }
    summary = "; ".join(f"{percentile_name(name)} {duration(totals[name])}" for name in names)
    legend = [(f"stage-{stage}", label) for stage, label in shown.items()]
    head = ["response time", "total", *shown.values()]
    numbers = [
        [
            percentile_name(name),
            duration(totals[name]),
            *(duration(found[name].get(s, 0.0)) for s in shown),
        ]
        for name in names
    ]
    return [
        Figure(
            "Where the time goes",
            "Mean stages of the requests around each percentile of the response time. They add up: "
            "a bar's length is that response time.",
            lambda width: charts.bars(
                "Response time by stage",
                summary,
                width,
                [row(name, share=False) for name in names],
                longest,
            ),
            legend,
            head,
            numbers,
        ),
        Figure(
            "The same as shares",
            "Each response time in full, so that the stages of the fast requests can be seen too.",
            lambda width: charts.bars(
                "Shares of the stages", summary, width, [row(name, share=True) for name in names], 1
            ),
            [],
            [],
            [],
        ),
    ]


def over_time(report: Report) -> list[Figure]:
    """Latency, rate and failures over the run."""
    series = report.get("time_series") or []
    if not series:
        return []
    found = intervals(series, report.get("time_step_s") or 1)
    x = axes.linear("seconds since the start", [found[-1].end], rounded, most_ticks=8, exact=True)
    spans = _spans(found)
    # What comes after the end takes a part of a second: its rate would be none.
    sending = [each for each in found if each.phase != "after"]
    made = [_latency(found, x, spans), _rates(sending or found, x, spans)]
    if any(each.failed for each in found):
        made.append(_failures(found, x))
    return made


def _spans(found: Sequence[Interval]) -> list[Span]:
    spans = []
    for phase, name in (("warm-up", "warm-up"), ("after", "sending ended")):
        inside = [each for each in found if each.phase == phase]
        if inside:
            spans.append(Span(inside[0].start, inside[-1].end, name))
    return spans


def _latency(found: Sequence[Interval], x: Axis, spans: Sequence[Span]) -> Figure:
    kinds = (("p50", "p50"), ("p99", "p99"), ("max", "max"))
    every = [t for each in found for t in (each.p50_s, each.p99_s, each.max_s) if t is not None]
    y = axes.of_times("response time", every, tick_time)
    lines = []
    for name, style in kinds:
        times = [(each.middle, getattr(each, f"{name}_s")) for each in found]
        titles = [f"{name} at {each.name}: {duration(time)}"
                  for each, (_, time) in zip(found, times, strict=True)]  # fmt: skip
        lines.append(Series(name, style, times, titles))
    worst = max(found, key=lambda each: each.max_s or 0.0)
    width = found[0].end - found[0].start
    pooled = "" if width <= 1 else (
        f" Each point stands for up to {width:g} s: the median of their p50, the worst p99."
    )  # fmt: skip
    return Figure(
        "Latency over time",
        "Response times of the requests answered in each second." + pooled,
        lambda width: charts.lines(
            "Latency over time",
            f"p50, p99 and maximum for each second; the slowest answer took {duration(worst.max_s)}, "
            f"at {worst.name}.",
            Plane(x, y, width, 260),
            # The maximum first, so that it is behind the others.
            lines[::-1],
            spans,
        ),
        [("line " + style, name) for name, style in kinds],
        ["time", "phase", "answered", "p50", "p99", "max"],
        [
            [each.name, each.phase, count(each.answered), duration(each.p50_s),
             duration(each.p99_s), duration(each.max_s)]
            for each in found
        ],
    )  # fmt: skip


def _rates(found: Sequence[Interval], x: Axis, spans: Sequence[Span]) -> Figure:
    kinds = (("due", "due", "due"), ("answered", "answered", "answered"))
    rates = [each.rate(getattr(each, field)) for each in found for _, _, field in kinds]
    y = axes.linear("requests/s", rates, rounded)
    lines = [
        Series(name, style, [(each.middle, each.rate(getattr(each, key))) for each in found],
               [f"{name} at {each.name}: {each.rate(getattr(each, key)):,.0f}/s" for each in found])
        for name, style, key in kinds
    ]  # fmt: skip
    return Figure(
        "Rate over time",
        "Requests that were due, and those that were answered. Where the two part, the server or "
        "the client falls behind.",
        lambda width: charts.lines(
            "Rate over time",
            f"Requests per second due and answered; up to {max(rates):,.0f}.",
            Plane(x, y, width, 220),
            lines,
            spans,
        ),
        [("line " + style, name) for name, style, _ in kinds],
        ["time", "due", "sent", "late", "answered", "failed", "under way"],
        [
            [each.name, *(count(n) for n in (each.due, each.sent, each.late, each.answered,
                                             each.failed, each.in_flight))]
            for each in found
        ],
    )  # fmt: skip


def _failures(found: Sequence[Interval], x: Axis) -> Figure:
    codes = sorted({code for each in found for code in each.errors})
    styles = {code: f"code-{n % 6}" for n, code in enumerate(codes)}
    y = axes.linear("failed requests", [each.failed for each in found], rounded)
    stacks = [
        (each.start, each.end, Bar("", "", [
            (styles[code], number, f"{code} at {each.name}: {count(number)}")
            for code, number in sorted(each.errors.items())
        ]))
        for each in found
    ]  # fmt: skip
    total = sum(each.failed for each in found)
    return Figure(
        "Failures over time",
        "Requests refused or failed in each second, by status code.",
        lambda width: charts.columns(
            "Failures over time",
            f"{count(total)} failed requests, of {listed(codes)}.",
            Plane(x, y, width, 180),
            stacks,
        ),
        [(styles[code], code) for code in codes],
        ["time", *codes],
        [
            [each.name, *(count(each.errors.get(code, 0)) for code in codes)]
            for each in found
            if each.failed
        ],
    )


def outcomes(report: Report) -> list[Figure]:
    """Requests by status code; nothing where all succeeded."""
    found = {code: number for code, number in report["outcomes"].items() if number}
    if not found.keys() - {"OK"}:
        return []
    total = report["requests"]
    failed = [code for code in found if code not in {"OK", "UNFINISHED"}]
    styles = {code: f"code-{n % 6}" for n, code in enumerate(sorted(failed))}
    styles |= {"OK": "ok", "UNFINISHED": "unfinished"}
    rows = [
        Bar(
            code,
            f"{count(number)} ({number / total:.2%})",
            [(styles[code], number, f"{code}: {count(number)}")],
        )
        for code, number in sorted(found.items(), key=lambda item: -item[1])
    ]
    return [
        Figure(
            "Outcomes",
            "Of all requests due in the measured time. UNFINISHED ones were due and never sent, or "
            "cut off at the end.",
            lambda width: charts.bars(
                "Outcomes",
                "; ".join(f"{row.name} {row.text}" for row in rows),
                width,
                rows,
                max(found.values()),
            ),
            [],
            ["outcome", "requests", "share"],
            [[row.name, count(found[row.name]), f"{found[row.name] / total:.2%}"] for row in rows],
        )
    ]


def batch_rows(report: Report) -> list[Figure]:
    """In what batches the requests were computed."""
    found = {int(rows): number for rows, number in (report.get("batch_rows") or {}).items()}
    if not found:
        return []
    total = sum(found.values())
    x = axes.linear("rows in the batch", [max(found) + 1], rounded, most_ticks=8, exact=True)
    y = axes.linear("requests", list(found.values()), rounded)
    stacks = [
        (rows - 0.4, rows + 0.4, Bar("", "", [
            ("stage-compute", number, f"{count(number)} requests in batches of {rows}")
        ]))
        for rows, number in sorted(found.items())
    ]  # fmt: skip
    mean = report.get("mean_batch_rows")
    often = max(found, key=lambda rows: found[rows])
    return [
        Figure(
            "Batch sizes",
            "Answered requests by the rows (images) of the batch they were computed in; "
            f"{mean:.1f} on average.",
            lambda width: charts.columns(
                "Batch sizes",
                f"Most requests, {found[often] / total:.0%}, were in batches of {often}.",
                Plane(x, y, width, 220),
                stacks,
            ),
            [],
            ["rows in the batch", "requests", "share"],
            [
                [count(rows), count(number), f"{number / total:.1%}"]
                for rows, number in sorted(found.items())
            ],
        )
    ]


def quantiles(report: Report) -> list[Figure]:
    """The distribution of the response time, drawn so that each further nine has the same room."""
    found = [(share, seconds) for share, seconds in report.get("response_quantiles_s") or []]
    found = [(share, seconds) for share, seconds in found if seconds is not None]
    if len(found) < 2:
        return []
    end = 1 - max((share for share, _ in found if share < 1), default=0.9)
    ticks = [
        (1 / (1 - share), f"p{100 * share:g}")
        for share in (0, 0.5, 0.9, 0.99, 0.999, 0.9999)
        if 1 - share >= end * 0.999
    ]
    x = Axis("of the requests", 1.0, 1 / end, ticks, logarithmic=True)
    times = [seconds for _, seconds in found]
    y = axes.of_times("response time", times, tick_time)
    inside = [(share, seconds) for share, seconds in found if share < 1]
    line = Series(
        "response time",
        "p99",
        [(1 / (1 - share), seconds) for share, seconds in inside],
        [f"p{100 * share:g}: {duration(seconds)}" for share, seconds in inside],
    )
    return [
        Figure(
            "Distribution of the response time",
            "The share of the requests that took no longer than this. Each further nine has the "
            "same width, so the tail can be read.",
            lambda width: charts.lines(
                "Distribution of the response time",
                "; ".join(f"p{100 * share:g} {duration(seconds)}" for share, seconds in inside),
                Plane(x, y, width, 240),
                [line],
            ),
            [],
            ["share", "response time"],
            [[f"{100 * share:g}%", duration(seconds)] for share, seconds in found],
        )
    ]
