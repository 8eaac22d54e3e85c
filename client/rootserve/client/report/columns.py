"""Columns: each figure of a table or drawing declared once, with its name and how it is written.

The terminal, the page and its drawings pick theirs from the same columns, so that no word is written twice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, TypeVar

from rootserve.client.load.report import PERCENTILES, LatencySummary, LoadResult, Part
from rootserve.client.stages import Stage, apart
from rootserve.client.units import count, duration, percent

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[T]):
    """One figure of each row, and if it is drawn, how.

    Attributes:
        name: Above the column, and in the legend.
        value: Of a row; None where it is not known.
        form: Writes a value.
        style: Of what is drawn for it; empty for what is in the table alone.
        drawn: What is drawn, where that is not the value itself.
        drawn_form: Writes that.
    """

    name: str
    value: Callable[[T], Any]
    form: Callable[[Any], str] = str
    style: str = ""
    drawn: Callable[[T], float | None] | None = None
    drawn_form: Callable[[Any], str] | None = None

    def text(self, row: T) -> str:
        """The figure as people read it."""
        value = self.value(row)
        return "-" if value is None else self.form(value)

    def of(self, inner: Callable[[S], T]) -> "Column[S]":
        """The same figure of rows that hold what it is of."""
        drawn = self.drawn
        return Column(
            self.name,
            lambda row: self.value(inner(row)),
            self.form,
            self.style,
            None if drawn is None else lambda row: drawn(inner(row)),
            self.drawn_form,
        )

    def height(self, row: T) -> float | None:
        """What is drawn of it."""
        found: float | None = (self.drawn or self.value)(row)
        return found

    def tip(self, row: T) -> str:
        """What is drawn of it, written."""
        height = self.height(row)
        return "-" if height is None else (self.drawn_form or self.form)(height)


def pick(columns: Sequence[Column[T]], *names: str) -> list[Column[T]]:
    """Those of these names, in this order."""
    by_name = {column.name: column for column in columns}
    return [by_name[name] for name in names]


def rate(value: float) -> str:
    """Something per second, or what is as large: "1,234.5"."""
    return f"{value:,.1f}"


def accuracy(value: float) -> str:
    """An accuracy, or a mean of accuracies: "0.8953"."""
    return f"{value:.4f}"


def _kept(key: str) -> Callable[[Any], Any]:
    """A figure of `Attained`, of rows that may have none."""
    return lambda row: getattr(row.attained, key, None)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _failures(each: LoadResult | Part) -> str:
    share = f" ({percent(each.failed / each.requests)})" if each.failed else ""
    return f"{count(each.failed)}{share}"


# Of a `LatencySummary`.
TIMES: tuple[Column[LatencySummary], ...] = (
    *(Column(name, attrgetter(key), duration) for key, name in PERCENTILES.items()),
    Column("mean", attrgetter("mean"), duration),
    Column("max", attrgetter("max"), duration),
)
_RESPONSE = [
    Column[Any](name, attrgetter(f"response_time_s.{key}"), duration, style=key)
    for key, name in PERCENTILES.items()
]
# Of a run among others.
RUN: tuple[Column[LoadResult], ...] = (
    Column("run", attrgetter("label")),
    Column("rows/s", attrgetter("throughput_rows_per_s"), rate),
    Column("requests/s", attrgetter("throughput_requests_per_s"), rate),
    *_RESPONSE,
    Column("failed", attrgetter("failed"), count),
    Column("late", attrgetter("late_departures"), count),
    Column("batch", attrgetter("mean_batch_rows"), rate),
    Column("stable", attrgetter("stable"), _yes),
)
# Of a run, a model or a server, where there was something to keep.
ATTAINED: tuple[Column[Any], ...] = (
    Column("attained", _kept("attainment"), percent),
    Column("goodput", _kept("accuracy_goodput"), accuracy),
    Column("accuracy", _kept("mean_accuracy"), accuracy),
    Column("late", _kept("late"), count),
    Column("broken", _kept("promises_broken"), count),
)
# Of one model or one server of a run.
PART: tuple[Column[Part], ...] = (
    Column("name", attrgetter("name")),
    Column("requests", attrgetter("requests"), count),
    Column("failed", lambda part: part, _failures),
    Column("rows/s", attrgetter("throughput_rows_per_s"), rate),
    *_RESPONSE,
)
TRIAL: tuple[Column[Any], ...] = (
    Column("window", lambda each: f"{each.start_s:.1f}-{each.end_s:.1f} s"),
    Column("requests/s", attrgetter("throughput_requests_per_s"), rate),
    Column("p99", attrgetter("p99_s"), duration),
    Column("counted", attrgetter("counted"), _yes),
)
# Ratios of B to A, by their key in a report.
RATIOS = {
    "throughput_rows_per_s": "throughput",
    "p50_s": "p50 of the response time",
    "p99_s": "p99 of the response time",
    "attainment": "attainment",
    "accuracy_goodput": "accuracy-goodput",
}


def stage_column(stage: Stage) -> Column[Any]:
    """Of the stages of a request, or of their means; what is drawn adds up to the response time."""
    return Column(
        stage.title,
        lambda stages: stages.get(stage.name, 0.0),
        duration,
        f"stage-{stage.name}",
        drawn=lambda stages: apart(stages, stage),
    )


def mix_text(variants: Mapping[str, int]) -> str:
    """Which variants answered, the most frequent first: "nin-orig 61.2%, nin-root-4 38.8%"."""
    total = sum(variants.values())
    often = sorted(variants.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {number / total:.1%}" for name, number in often)


def error_column(code: str, name: str | None = None, style: str = "") -> Column[Any]:
    """Failures by a status code."""
    return Column(name or code, lambda each: each.errors.get(code, 0), count, style)


def ratio_text(value: float | None) -> str:
    """A ratio, or an end of its interval."""
    return "-" if value is None else f"{value:.3f}"
