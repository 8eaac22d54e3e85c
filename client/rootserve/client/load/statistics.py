"""Ratios of what two runs measured, with intervals. Pure."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

# 97.5 % quantile of Student's t by degrees of freedom; beyond the table the next lower one holds.
_T = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262,
    10: 2.228, 12: 2.179, 15: 2.131, 20: 2.086, 30: 2.042, 60: 2.000, 120: 1.980,
}  # fmt: skip
_MOST_BATCHES = 10
LEAST_VALUES = 3
"""Of fewer values no spread is told."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """B over A and its 95 % interval; the limits are None where nothing tells the spread."""

    ratio: float
    low: float | None = None
    high: float | None = None

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 1."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def paired_ratio(pairs: Sequence[tuple[float | None, float | None]]) -> Ratio | None:
    """Geometric mean of B / A over rounds (a, b), with Student's 95 % interval of the rounds.

    Rounds in which either has no figure above 0 are left out; None if no round is left.
    """
    logs = [math.log(b / a) for a, b in pairs if a and b and a > 0 and b > 0]
    if not logs:
        return None
    mean = sum(logs) / len(logs)
    if len(logs) == 1:
        return Ratio(math.exp(mean))
    variance = sum((log - mean) ** 2 for log in logs) / (len(logs) - 1)
    half = student_t(len(logs) - 1) * math.sqrt(variance / len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def unpaired_ratio(
    a: float | None,
    b: float | None,
    within_a: Sequence[float | None],
    within_b: Sequence[float | None],
) -> Ratio | None:
    """B / A of two runs made one after the other.

    The interval is from how each figure varied within its run, by the method of batch means: the
    values of all the run's seconds are averaged in up to ten batches, whose spread is not narrowed
    by one second being like the next. What changed on the machine from one run to the other is
    not in it: pairs are for that.

    Args:
        a: The figure of run A.
        b: The figure of run B.
        within_a: The figure's value for each second of run A.
        within_b: The same of run B.

    Returns:
        None unless both figures are above 0.
    """
    if not (a and b and a > 0 and b > 0):
        return None
    ratio = b / a
    spreads = [_relative_spread(within_a), _relative_spread(within_b)]
    known = [each for each in spreads if each is not None]
    if len(known) < 2:
        return Ratio(ratio)
    (error_a, degrees_a), (error_b, degrees_b) = known
    half = student_t(min(degrees_a, degrees_b)) * math.hypot(error_a, error_b)
    return Ratio(ratio, ratio * math.exp(-half), ratio * math.exp(half))


def _relative_spread(values: Sequence[float | None]) -> tuple[float, int] | None:
    """Standard error of the mean over the mean, and its degrees of freedom."""
    known = [value for value in values if value is not None]
    if len(known) < LEAST_VALUES:
        return None
    # Every value counts: batches of the same length, or the last ones longer by one.
    count = len(known) // math.ceil(len(known) / _MOST_BATCHES)
    ends = [len(known) * n // count for n in range(count + 1)]
    batches = [sum(known[start:end]) / (end - start) for start, end in itertools.pairwise(ends)]
    mean = sum(known) / len(known)
    if mean <= 0:
        return None
    variance = sum((batch - mean) ** 2 for batch in batches) / (count - 1)
    return math.sqrt(variance / count) / mean, count - 1


def student_t(degrees: int) -> float:
    """97.5 % quantile of Student's t, rounded up to the next tabulated one."""
    return _T[max(each for each in _T if each <= degrees)]
