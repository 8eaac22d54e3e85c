"""The figures of one run: which of its numbers are drawn, how, and what is said of them.

A figure is told its rows and columns once; its drawing, its legend and its table are made of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, Generic, TypeVar
from xml.etree.ElementTree import Element

from rootserve.client.load.comparison import limits_text
from rootserve.client.load.report import PERCENTILES, LoadResult, Report
from rootserve.client.report import axes, charts
from rootserve.client.report.axes import Axis
from rootserve.client.report.charts import Bar, Plane, Series, Span
from rootserve.client.report.columns import TIMES, Column, error_column, stage_column
from rootserve.client.report.markup import Content, element, table
from rootserve.client.report.seconds import Interval, intervals
from rootserve.client.report.words import listed, rounded, tick_time
from rootserve.client.stages import STAGES, Stage, total_s
from rootserve.client.units import count, duration

T = TypeVar("T")
# Widths a figure is drawn for; the style sheet shows the one that fits the screen.
_WIDE, _NARROW = 720, 350


@dataclass(frozen=True)
class Figure(Generic[T]):
    """A drawing, for whatever width it gets, and the words beside it.

    Attributes:
        title: Its heading.
        caption: What is seen and how to read it.
        summary: What it shows, for who cannot see it.
        draw: Makes it of its text alternative and a width in pixels.
        rows: Of the table with the same numbers; none if they are another figure's.
        columns: Of that table.
        legend: `(style, name)` of what is in it.
        more: What else is told below it.
    """

    title: str
    caption: str
    summary: str
    draw: Callable[[str, float], Element]
    rows: Sequence[T] = ()
    columns: Sequence[Column[T]] = ()
    legend: Sequence[tuple[str, str]] = ()
    more: Element | None = None

    def section(self, *, unfolded: bool = False) -> Element:
        """All of it; with its numbers unfolded, if they are what is looked for."""
        label = f"{self.title}. {self.summary}"
        legend = [
            element("li", element("span", class_=f"key {style}"), name)
            for style, name in self.legend
        ]
        shown = "" if unfolded else None
        numbers = element("details", element("summary", "The numbers"), self.table(), open=shown)
        return element(
            "section",
            element("h2", self.title),
            element("p", self.caption, class_="caption"),
            element("ul", *legend, class_="legend") if legend else None,
            element("figure", self.draw(label, _WIDE), class_="wide"),
            element("figure", self.draw(label, _NARROW), class_="narrow"),
            numbers if self.rows else None,
            self.more,
        )

    def table(self) -> Element:
        """Its numbers."""
        return table_of(self.title, self.columns, self.rows)


def table_of(caption: str, columns: Sequence[Column[T]], rows: Sequence[T]) -> Element:
    """A table of these columns."""
    head = [column.name for column in columns]
    return table(caption, head, [[column.text(row) for column in columns] for row in rows])


def keys(columns: Sequence[Column[Any]], mark: str = "") -> list[tuple[str, str]]:
    """The legend of the columns that are drawn."""
    return [(f"{mark}{column.style}", column.name) for column in columns if column.style]


def lines_of(
    columns: Sequence[Column[T]],
    rows: Sequence[T],
    x: Callable[[T], float],
    name: Callable[[T], str],
) -> list[Series]:
    """A line for each column that is drawn, over the rows' `x`."""
    return [
        Series(
            column.name,
            column.style,
            [(x(row), column.height(row)) for row in rows],
            [f"{column.name} at {name(row)}: {column.tip(row)}" for row in rows],
        )
        for column in columns
        if column.style
    ]


def parts_of(columns: Sequence[Column[T]], row: T, at: str = "") -> list[tuple[str, float, str]]:
    """The parts of a bar: one for each column that is drawn."""
    return [
        (column.style, height, f"{column.name}{at}: {column.text(row)}")
        for column in columns
        if column.style and (height := column.height(row))
    ]


def stages(run: LoadResult) -> list[Figure[Any]]:
    """Where the time of fast and slow requests goes: as time, and as shares of it."""
    found = run.stages_by_percentile_s
    if not found:
        return []
    titles = {**PERCENTILES, "mean": "mean"}
    rows = {titles[name]: found[name] for name in titles if found.get(name)}
    shown = [each for each in STAGES if any(times.get(each.name) for times in rows.values())]
    parts = [stage_column(stage) for stage in shown]
    within = "".join(
        f" In the numbers {stage.within} has {stage.title} in it; the bars tell them apart."
        for stage in shown
        if stage.within
    )
    figures = [Column("total", total_s, duration), *parts]
    columns = [Column[str]("response time", str), *(each.of(rows.__getitem__) for each in figures)]
    summary = "; ".join(f"{name} {duration(total_s(times))}" for name, times in rows.items())
    longest = max(total_s(times) for times in rows.values())

    def bar(name: str, times: Mapping[str, float], *, share: bool) -> Bar:
        total = total_s(times)
        whole = total or 1.0
        return Bar(
            name,
            duration(total),
            [
                (style, height / (whole if share else 1.0), f"{text}, {height / whole:.0%}")
                for style, height, text in parts_of(parts, times)
            ],
        )

    def drawing(*, share: bool) -> Callable[[str, float], Element]:
        made = [bar(name, times, share=share) for name, times in rows.items()]
        return lambda label, width: charts.bars(label, width, made, 1 if share else longest)

    return [
        Figure(
            "Where the time goes",
            "Mean stages of the requests around each percentile of the response time. They add up: "
            "a bar's length is that response time." + within,
            summary,
            drawing(share=False),
            list(rows),
            columns,
            keys(parts),
        ),
        Figure(
            "The same as shares",
            "Each response time in full, so that the stages of the fast requests can be seen too.",
            summary,
            drawing(share=True),
            more=_stage_words(run),
        ),
    ]


def _stage_words(run: LoadResult) -> Element:
    """What the stages are, and the percentiles of each by itself."""
    items: list[Content] = []
    for stage in STAGES:
        items += [element("dt", stage.title), element("dd", stage.words)]
    by_itself = None
    if times := run.stage_times_s:
        told = [stage for stage in STAGES if stage.name in times]
        columns = [Column[Stage]("stage", attrgetter("title"))]
        columns += [column.of(lambda stage: times[stage.name]) for column in TIMES]
        by_itself = table_of(
            "Percentiles of each stage by itself; they do not add up", columns, told
        )
    return element(
        "details", element("summary", "What the stages are"), element("dl", *items), by_itself
    )


def over_time(run: LoadResult) -> list[Figure[Interval]]:
    """Latency, rate and failures over the run."""
    if not run.time_series:
        return []
    found = intervals(run.time_series, run.time_step_s)
    x = axes.linear("seconds since the start", [found[-1].end], rounded, most_ticks=8, exact=True)
    spans = spans_of(found)
    # What comes after the end takes a part of a second: its rate would be none.
    sending = [each for each in found if each.phase != "after"]
    made = [_latency(found, x, spans), _rates(sending or found, x, spans)]
    if any(each.failed for each in found):
        made.append(_failures(found, x))
    return made


def spans_of(found: Sequence[Interval]) -> list[Span]:
    """The stretches before and after what is measured."""
    spans = []
    for phase, name in (("warm-up", "warm-up"), ("after", "sending ended")):
        inside = [each for each in found if each.phase == phase]
        if inside:
            spans.append(Span(inside[0].second, inside[-1].end, name))
    return spans


TIME = Column[Interval]("time", attrgetter("name"))


def _latency(found: Sequence[Interval], x: Axis, spans: Sequence[Span]) -> Figure[Interval]:
    columns = [
        TIME,
        Column[Interval]("phase", attrgetter("phase")),
        Column[Interval]("answered", attrgetter("answered"), count),
        *(
            Column[Interval](name, attrgetter(f"{name}_s"), duration, name)
            for name in ("p50", "p99", "max")
        ),
    ]
    lines = lines_of(columns, found, attrgetter("middle"), attrgetter("name"))
    y = axes.of_times("response time", _known(lines), tick_time)
    worst = max(found, key=lambda each: each.max_s or 0.0)
    width_s = found[0].length_s
    pooled = (
        f" Each point stands for up to {width_s:g} s: the median of their p50, the worst p99."
        if width_s > 1
        else ""
    )
    return Figure(
        "Latency over time",
        "Response times of the requests answered in each second." + pooled,
        f"p50, p99 and maximum for each second; the slowest answer took {duration(worst.max_s)}, "
        f"at {worst.name}.",
        # The maximum first, so that it is behind the others.
        lambda label, width: charts.lines(label, Plane(x, y, width, 260), lines[::-1], spans),
        found,
        columns,
        keys(columns, "line "),
    )


def _known(series: Sequence[Series]) -> list[float]:
    """The heights that are known."""
    return [y for each in series for _, y in each.points if y is not None]


def _rates(found: Sequence[Interval], x: Axis, spans: Sequence[Span]) -> Figure[Interval]:
    def counted(name: str, key: str, *, drawn: bool = False) -> Column[Interval]:
        value = attrgetter(key)
        if not drawn:
            return Column(name, value, count)
        return Column(
            name,
            value,
            count,
            style=key,
            drawn=lambda each: value(each) / each.length_s,
            drawn_form=lambda rate: f"{rate:,.0f}/s",
        )

    columns = [
        TIME,
        counted("due", "due", drawn=True),
        counted("sent", "sent"),
        counted("late", "late"),
        counted("answered", "answered", drawn=True),
        counted("failed", "failed"),
        counted("under way", "in_flight"),
    ]
    lines = lines_of(columns, found, attrgetter("middle"), attrgetter("name"))
    rates = _known(lines)
    y = axes.linear("requests/s", rates, rounded)
    return Figure(
        "Rate over time",
        "Requests that were due, and those that were answered. Where the two part, the server or "
        "the client falls behind.",
        f"Requests per second due and answered; up to {max(rates):,.0f}.",
        lambda label, width: charts.lines(label, Plane(x, y, width, 220), lines, spans),
        found,
        columns,
        keys(columns, "line "),
    )


def _failures(found: Sequence[Interval], x: Axis) -> Figure[Interval]:
    codes = sorted({code for each in found for code in each.errors})
    styles = _code_styles(codes)
    columns = [TIME, *(error_column(code, style=styles[code]) for code in codes)]
    y = axes.linear("failed requests", [each.failed for each in found], rounded)
    failed = [each for each in found if each.failed]
    bars = [
        (each.second, each.end, Bar("", "", parts_of(columns, each, f" at {each.name}")))
        for each in failed
    ]
    total = sum(each.failed for each in found)
    return Figure(
        "Failures over time",
        "Requests refused or failed in each second, by status code.",
        f"{count(total)} failed requests, of {listed(codes)}.",
        lambda label, width: charts.stacks(label, Plane(x, y, width, 180), bars),
        failed,
        columns,
        keys(columns),
    )


def _code_styles(codes: Sequence[str]) -> dict[str, str]:
    return {code: f"code-{n % 6}" for n, code in enumerate(codes)}


def _share(total: int, digits: int) -> Column[tuple[Any, int]]:
    return Column("share", lambda row: row[1] / total, lambda share: f"{share:.{digits}%}")


def outcomes(run: LoadResult) -> list[Figure[tuple[str, int]]]:
    """Requests by status code; nothing where all succeeded."""
    found = {code: number for code, number in run.outcomes.items() if number}
    if not found.keys() - {"OK"}:
        return []
    styles = _code_styles(sorted(found.keys() - {"OK", "UNFINISHED"}))
    styles |= {"OK": "ok", "UNFINISHED": "unfinished"}
    columns = [
        Column[tuple[str, int]]("outcome", itemgetter(0)),
        Column[tuple[str, int]]("requests", itemgetter(1), count),
        _share(run.requests, 2),
    ]
    rows = sorted(found.items(), key=lambda item: -item[1])
    bars = []
    for row in rows:
        code, number, share = (column.text(row) for column in columns)
        part = (styles[code], row[1], f"{code}: {number}")
        bars.append(Bar(code, f"{number} ({share})", [part]))
    return [
        Figure(
            "Outcomes",
            "Of all requests due in the measured time. UNFINISHED ones were due and never sent, or "
            "cut off at the end.",
            "; ".join(f"{bar.name} {bar.text}" for bar in bars),
            lambda label, width: charts.bars(label, width, bars, max(found.values())),
            rows,
            columns,
        )
    ]


def batch_rows(run: Report) -> list[Figure[tuple[int, int]]]:
    """In what batches the requests were computed, and how large the server makes them."""
    found = sorted(run.batch_rows.items())
    if not found:
        return []
    columns = [
        Column[tuple[int, int]]("rows in the batch", itemgetter(0), count),
        Column[tuple[int, int]]("requests", itemgetter(1), count, "stage-compute"),
        _share(sum(number for _, number in found), 1),
    ]
    x = axes.linear("rows in the batch", [found[-1][0] + 1], rounded, most_ticks=8, exact=True)
    y = axes.linear("requests", [number for _, number in found], rounded)
    bars = [
        (
            row[0] - 0.4,
            row[0] + 0.4,
            Bar("", "", parts_of(columns, row, f" in batches of {row[0]}")),
        )
        for row in found
    ]
    often = max(found, key=itemgetter(1))
    limits = limits_text(run)
    return [
        Figure(
            "Batch sizes",
            "Answered requests by the rows (images) of the batch they were computed in; "
            f"{run.mean_batch_rows or 0:.1f} on average."
            + (f" The server makes none above {limits}, as it measured." if limits else ""),
            f"Most requests, {columns[2].text(often)}, were in batches of {often[0]}.",
            lambda label, width: charts.stacks(label, Plane(x, y, width, 220), bars),
            found,
            columns,
        )
    ]


def quantiles(run: LoadResult) -> list[Figure[Any]]:
    """The distribution of the response time, drawn so that each further nine has the same room."""
    found = [(share, seconds) for share, seconds in run.response_quantiles_s if seconds is not None]
    if len(found) < 2:
        return []
    columns = [
        Column[tuple[float, float]]("share", itemgetter(0), lambda share: f"{100 * share:g}%"),
        Column[tuple[float, float]]("response time", itemgetter(1), duration, "p99"),
    ]
    end = 1 - max((share for share, _ in found if share < 1), default=0.9)
    ticks = [
        (1 / (1 - share), f"p{100 * share:g}")
        for share in (0, 0.5, 0.9, 0.99, 0.999, 0.9999)
        if 1 - share >= end * 0.999
    ]
    x = Axis("of the requests", 1.0, 1 / end, ticks, logarithmic=True)
    y = axes.of_times("response time", [seconds for _, seconds in found], tick_time)
    inside = [(share, seconds) for share, seconds in found if share < 1]
    lines = lines_of(
        columns, inside, lambda row: 1 / (1 - row[0]), lambda row: f"p{100 * row[0]:g}"
    )
    return [
        Figure(
            "Distribution of the response time",
            "The share of the requests that took no longer than this. Each further nine has the "
            "same width, so the tail can be read.",
            "; ".join(f"p{100 * share:g} {duration(seconds)}" for share, seconds in inside),
            lambda label, width: charts.lines(label, Plane(x, y, width, 240), lines),
            found,
            columns,
        )
    ]
