"""What happened in each second of a run, or in each few seconds of a long one."""

import itertools
import math
from bisect import bisect_left
from collections import Counter
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rootserve.client.load.histogram import BUCKETS, bucket_of, seconds_of
from rootserve.client.load.report import Second

# More steps than a page is wide tell nothing, and each keeps a histogram.
_MOST_STEPS = 600


class TimeSeries:
    """Counts by step of time since the start. Those of several processes add up exactly."""

    def __init__(self, longest_s: float) -> None:
        """A series for a run of at most `longest_s` seconds."""
        self.step_s = max(1, math.ceil(longest_s / _MOST_STEPS))
        self._due: Counter[int] = Counter()
        self._sent: Counter[int] = Counter()
        self._late: Counter[int] = Counter()
        self._answered: Counter[int] = Counter()
        self._rows: Counter[int] = Counter()
        self._in_time: Counter[int] = Counter()
        self._accuracy: dict[int, float] = {}
        self._errors: dict[int, Counter[str]] = {}
        self._variants: dict[int, Counter[str]] = {}
        # By step * BUCKETS + bucket: the step's histogram, sparse.
        self._times: Counter[int] = Counter()

    def add_departed(
        self, due_s: NDArray[np.float64], sent_s: NDArray[np.float64], late_s: float
    ) -> None:
        """Add departures [N]; those that left more than `late_s` after they were due are late."""
        _count(self._due, self._steps(due_s))
        _count(self._sent, self._steps(sent_s))
        _count(self._late, self._steps(due_s[sent_s - due_s > late_s]))

    def add_answered(
        self,
        done_s: NDArray[np.float64],
        response_s: NDArray[np.float64],
        rows: NDArray[np.float64],
    ) -> None:
        """Add answers [N]: when they came, their response times and rows."""
        steps = self._steps(done_s)
        _count(self._answered, steps)
        for step in np.unique(steps):
            self._rows[int(step)] += int(rows[steps == step].sum())
        _count(self._times, steps * BUCKETS + bucket_of(response_s))

    def add_in_time(self, due_s: NDArray[np.float64], accuracies: NDArray[np.float64]) -> None:
        """Add answers [N] that came in time: when they were due; accuracies, not a number if not known."""
        steps = self._steps(due_s)
        _count(self._in_time, steps)
        for step in np.unique(steps).tolist():
            known = float(np.nansum(accuracies[steps == step]))
            self._accuracy[step] = self._accuracy.get(step, 0.0) + known

    def add_variant(self, name: str, done_s: NDArray[np.float64]) -> None:
        """Add answers [N] that a variant computed: when they came."""
        for step, number in zip(*np.unique(self._steps(done_s), return_counts=True), strict=True):
            self._variants.setdefault(int(step), Counter())[name] += int(number)

    def add_failed(self, done_s: float, code: str) -> None:
        """Add a failure."""
        step = int(done_s // self.step_s)
        self._errors.setdefault(step, Counter())[code] += 1

    def merge(self, other: Self) -> None:
        """Add what another one counted."""
        for name in ("_due", "_sent", "_late", "_answered", "_rows", "_times", "_in_time"):
            getattr(self, name).update(getattr(other, name))
        for step, errors in other._errors.items():
            self._errors.setdefault(step, Counter()).update(errors)
        for step, variants in other._variants.items():
            self._variants.setdefault(step, Counter()).update(variants)
        for step, accuracy in other._accuracy.items():
            self._accuracy[step] = self._accuracy.get(step, 0.0) + accuracy

    def steps(self, start_s: float, end_s: float) -> list[Second]:
        """All steps from the start; measured from start_s to end_s."""
        used = [*self._due, *self._sent, *self._answered, *self._errors]
        times: dict[int, list[tuple[int, int]]] = {}
        for key, count in sorted(self._times.items()):
            times.setdefault(key // BUCKETS, []).append((key % BUCKETS, count))
        steps = []
        in_flight = 0
        for step in range(max(used, default=-1) + 1):
            second = step * self.step_s
            errors = self._errors.get(step, Counter())
            in_flight += self._sent[step] - self._answered[step] - errors.total()
            p50_s, p99_s, max_s = _percentiles(times.get(step, []))
            steps.append(
                Second(
                    second=second,
                    phase=_phase(second, self.step_s, start_s, end_s),
                    due=self._due[step],
                    sent=self._sent[step],
                    late=self._late[step],
                    answered=self._answered[step],
                    rows=self._rows[step],
                    failed=errors.total(),
                    errors=dict(sorted(errors.items())),
                    in_flight=in_flight,
                    p50_s=p50_s,
                    p99_s=p99_s,
                    max_s=max_s,
                    in_time=self._in_time[step],
                    accuracy_in_time=self._accuracy.get(step, 0.0),
                    variants=dict(sorted(self._variants.get(step, {}).items())),
                )
            )
        return steps

    def _steps(self, instants_s: NDArray[np.float64]) -> NDArray[np.int64]:
        steps: NDArray[np.int64] = np.maximum(instants_s / self.step_s, 0).astype(np.int64)
        return steps


def _count(counter: Counter[int], keys: NDArray[np.int64]) -> None:
    values, counts = np.unique(keys, return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        counter[value] += count


def _phase(second: float, step_s: float, start_s: float, end_s: float) -> str:
    middle_s = second + step_s / 2
    if middle_s < start_s:
        return "warm-up"
    return "measured" if middle_s < end_s or second < end_s < second + step_s else "after"


def _percentiles(histogram: list[tuple[int, int]]) -> list[float | None]:
    """p50, p99 and maximum of a sparse histogram, sorted: pairs (bucket, count)."""
    total = sum(count for _, count in histogram)
    ranks = [max(1, math.ceil(share * total)) for share in (0.5, 0.99, 1.0)]
    ends = list(itertools.accumulate(count for _, count in histogram))
    return [seconds_of(histogram[bisect_left(ends, rank)][0]) if total else None for rank in ranks]
