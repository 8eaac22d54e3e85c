"""The seconds of a run, pooled so far that a drawing or a table of them can be read."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rootserve.client.load.report import Second

# More would be drawn over one another.
MOST_INTERVALS = 240
_COUNTS = (
    "due",
    "sent",
    "late",
    "answered",
    "rows",
    "failed",
    "in_time",
    "accuracy_in_time",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval(Second):
    """One or more steps of the series, of one phase, from `second` on.

    Counts are sums. Percentiles cannot be pooled: `p50_s` is the median of the steps' own, and
    `p99_s` and `max_s` are the worst of them. `in_flight` is that of the last step.
    """

    length_s: float

    @property
    def end(self) -> float:
        """Seconds since the start."""
        return self.second + self.length_s

    @property
    def middle(self) -> float:
        """Where it is drawn."""
        return self.second + self.length_s / 2

    @property
    def name(self) -> str:
        """Such as "7 s", or "10-14 s"."""
        if self.length_s <= 1:
            return f"{self.second:g} s"
        return f"{self.second:g}-{self.end:g} s"


def intervals(seconds: Sequence[Second], step: float) -> list[Interval]:
    """Pool a report's `time_series` into at most 240 intervals or so, phases kept apart.

    `step` is the report's `time_step_s`: longer than a second in very long runs.
    """
    width = -(-len(seconds) // MOST_INTERVALS)
    pooled: list[list[Second]] = []
    for second in seconds:
        last = pooled[-1] if pooled else None
        if last and last[0].phase == second.phase and len(last) < width:
            last.append(second)
        else:
            pooled.append([second])
    return [_pool(each, step) for each in pooled]


def _pool(seconds: Sequence[Second], step: float) -> Interval:
    def times(key: str) -> list[float]:
        return [value for second in seconds if (value := getattr(second, key)) is not None]

    errors: Counter[str] = Counter()
    variants: Counter[str] = Counter()
    for second in seconds:
        errors.update(second.errors)
        variants.update(second.variants)
    first, last = seconds[0], seconds[-1]
    medians = times("p50_s")
    return Interval(
        second=first.second,
        length_s=last.second + step - first.second,
        phase=first.phase,
        **{key: sum(getattr(second, key) for second in seconds) for key in _COUNTS},
        variants=dict(sorted(variants.items())),
        errors=dict(sorted(errors.items())),
        in_flight=last.in_flight,
        p50_s=statistics.median(medians) if medians else None,
        p99_s=max(times("p99_s"), default=None),
        max_s=max(times("max_s"), default=None),
    )
