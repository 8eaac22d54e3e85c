"""The seconds of a run, pooled so far that a drawing or a table of them can be read."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# More would be drawn over one another.
MOST_INTERVALS = 240


@dataclass(frozen=True, slots=True)
class Interval:
    """One or more steps of the series, of one phase. `start` and `end` are seconds since the start.

    Counts are sums. Percentiles cannot be pooled: `p50_s` is the median of the steps' own, and
    `p99_s` and `max_s` are the worst of them. `in_flight` is that of the last step.
    """

    start: float
    end: float
    phase: str
    due: int
    sent: int
    late: int
    answered: int
    failed: int
    errors: Mapping[str, int]
    in_flight: int
    p50_s: float | None
    p99_s: float | None
    max_s: float | None

    @property
    def middle(self) -> float:
        """Where it is drawn."""
        return (self.start + self.end) / 2

    @property
    def name(self) -> str:
        """Such as "7 s", or "10-14 s"."""
        if self.end - self.start <= 1:
            return f"{self.start:g} s"
        return f"{self.start:g}-{self.end:g} s"

    def rate(self, number: float) -> float:
        """A count per second."""
        return number / (self.end - self.start)


def intervals(seconds: Sequence[Mapping[str, Any]], step: float) -> list[Interval]:
    """Pool a report's `time_series` into at most 240 intervals or so, phases kept apart.

    `step` is the report's `time_step_s`: longer than a second in very long runs.
    """
    width = -(-len(seconds) // MOST_INTERVALS)
    pooled: list[list[Mapping[str, Any]]] = []
    for second in seconds:
        last = pooled[-1] if pooled else None
        if last and last[0]["phase"] == second["phase"] and len(last) < width:
            last.append(second)
        else:
            pooled.append([second])
    return [_pool(each, step) for each in pooled]


def _pool(seconds: Sequence[Mapping[str, Any]], step: float) -> Interval:
    def total(key: str) -> int:
        return sum(second.get(key) or 0 for second in seconds)

    def times(key: str) -> list[float]:
        return [second[key] for second in seconds if second.get(key) is not None]

    errors: Counter[str] = Counter()
    for second in seconds:
        errors.update(second.get("errors") or {})
    medians = times("p50_s")
    return Interval(
        start=seconds[0]["second"],
        end=seconds[-1]["second"] + step,
        phase=seconds[0]["phase"],
        due=total("due"),
        sent=total("sent"),
        late=total("late"),
        answered=total("answered"),
        failed=total("failed"),
        errors=dict(sorted(errors.items())),
        in_flight=seconds[-1].get("in_flight") or 0,
        p50_s=statistics.median(medians) if medians else None,
        p99_s=max(times("p99_s"), default=None),
        max_s=max(times("max_s"), default=None),
    )
