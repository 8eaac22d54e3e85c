"""Batches of one model, kind of worker and form, by rows: means of many, and what few took at most."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

WINDOW: Final = 64
"""Batches of each size that are remembered."""

_GUARD: Final = 3
"""Nothing takes less than the longest of so many last ones."""

_FEW: Final = 8
_MARGIN: Final = 0.25
"""Of fewer batches than ``_FEW`` the longest says little: up to so much is added to it.

What was measured first counts as so many in a mean."""

LONG: Final = 512
"""Over so many batches a mean goes: variants differ by less than a few batches do by chance."""


class Series:
    """Batches of one key by rows, as long as they take at a pace of 1."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.recent: dict[int, deque[float]] = {}
        self._ordered: dict[int, list[float]] = {}
        """The same, shortest first."""
        self.counts: dict[int, int] = {}
        self.means: dict[int, float] = {}
        self.typical: dict[int, float] = {}
        """Geometric means, which change slowly: what a worker's pace refers to."""
        self._bounds: dict[int, float] = {}
        self.changes = 0
        """Grows with everything that is learned."""

    def between(self, known: Mapping[int, float], rows: int) -> float:
        """What ``known`` of ``sizes`` says of ``rows``: a line in between, in proportion beyond."""
        at = bisect_left(self.sizes, rows)
        if at == len(self.sizes):
            return known[self.sizes[-1]] * rows / self.sizes[-1]
        above = self.sizes[at]
        if above == rows or at == 0:
            return known[above]
        below = self.sizes[at - 1]
        return known[below] + (known[above] - known[below]) * (rows - below) / (above - below)

    def size_of(self, rows: int) -> int:
        """The size as which a batch of ``rows`` is remembered: the one of its class, or its own."""
        upper = 1 << size_class(rows)
        at = bisect_left(self.sizes, upper // 2 + 1)
        if at < len(self.sizes) and self.sizes[at] <= upper:
            return self.sizes[at]
        return rows

    def learn(self, rows: int, seconds: float) -> None:
        """Take a batch of ``rows`` that took ``seconds`` into account."""
        size = self.size_of(rows)
        if size not in self.recent:
            self.know(size, (seconds,), 1, seconds, seconds)
            return
        if size != rows:
            seconds *= self.between(self.means, size) / max(self.between(self.means, rows), 1e-9)
        weight = 1.0 / min(LONG, _FEW + self.counts[size])
        recent, ordered = self.recent[size], self._ordered[size]
        if len(recent) == WINDOW:
            del ordered[bisect_left(ordered, recent[0])]
        recent.append(seconds)
        insort(ordered, seconds)
        self.counts[size] += 1
        self.means[size] += weight * (seconds - self.means[size])
        weight = 1.0 / min(LONG, 2 * WINDOW + self.counts[size])
        self.typical[size] *= (max(seconds, 1e-9) / self.typical[size]) ** weight
        self._bounds.clear()
        self.changes += 1

    def know(
        self, size: int, recent: Sequence[float], count: int, mean_s: float, typical_s: float
    ) -> None:
        """All that there is to know of batches of ``size`` rows."""
        self.recent[size] = deque(recent, maxlen=WINDOW)
        self._ordered[size] = sorted(self.recent[size])
        self.counts[size] = count
        self.means[size] = mean_s
        self.typical[size] = max(typical_s, 1e-9)
        self.sizes = sorted(self.recent)
        self._bounds.clear()
        self.changes += 1

    def mean(self, rows: int) -> float:
        """What ``rows`` take in the mean."""
        return self.between(self.means, rows)

    def median_of(self, size: int) -> float:
        """What half of the last batches of ``size`` rows, which is one of ``sizes``, took at most."""
        ordered = self._ordered[size]
        return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2

    def bound(self, rows: int) -> float:
        """What ``rows`` take at most."""
        seconds = self._bounds.get(rows)
        if seconds is None:
            at = bisect_left(self.sizes, rows)
            for size in self.sizes[max(0, at - 1) : at + 1]:
                if size not in self._bounds:
                    self._bounds[size] = _bound(self._ordered[size], self.recent[size])
            seconds = self._bounds[rows] = self.between(self._bounds, rows)
        return seconds


def _bound(ordered: Sequence[float], recent: Sequence[float]) -> float:
    """The 99th percentile of ``recent``, no less than the last few, with a margin where there are few.

    ``ordered`` are the same.
    """
    at = 0.99 * (len(ordered) - 1)
    below = int(at)
    high = ordered[below]
    if below + 1 < len(ordered):
        high += (at - below) * (ordered[below + 1] - high)
    if len(ordered) < _FEW:
        return ordered[-1] * (1.0 + _MARGIN * (1.0 - len(ordered) / _FEW))
    guard = max(recent[place] for place in range(-_GUARD, 0))
    return max(high, guard)


def size_class(rows: int) -> int:
    """Which power of two ``rows`` are rounded up to."""
    return (rows - 1).bit_length()
