"""What is asked of a family lately, and what a second of its workers is worth."""

from __future__ import annotations

import math
from typing import Final

from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Speed

_NOW_S: Final = 0.01
_LATELY_S: Final = 0.05
_LASTING_S: Final = 1.0
"""Over how long arrivals are averaged, to see that more comes at once, what comes next and what lasts."""

_BEGIN_S: Final = 0.02
"""The first arrivals count as if they had come in so long at least."""

_MANY: Final = 128
"""Over so many requests their gaps, rows and deadlines are averaged."""

_SIGMAS: Final = 0.7
"""By so many standard deviations more than on average is told from chance: one time in four in vain."""

_DOWN: Final = 0.91
_UP: Final = 1.01
"""How fast the tenth part of the deadlines is followed: nine times as many are longer as are shorter."""

_FULL: Final = 1.05
_OVERLOAD: Final = 1.15
"""Up to the first of these loads, it need not be overload; from the second on, it is beyond doubt."""

_UNSURE: Final = 1.5
"""What waits is taken to scatter so much more than the last requests and batches say, which are few.

If it scatters less, a little accuracy is lost; if more, requests are.
"""

_LOSSES: Final = 20.0
"""If one in so many requests was lost in the last second, no time is left over, whatever is predicted."""


class _Rate:
    """Rows per second, averaged over about ``over_s``."""

    __slots__ = ("_first_s", "_last_s", "_over_s", "_sum")

    def __init__(self, over_s: float) -> None:
        self._over_s = over_s
        self._sum = 0.0
        self._first_s: float | None = None
        self._last_s = 0.0

    def came(self, rows: int, now: float) -> None:
        if self._first_s is None:
            self._first_s = now
        self._sum = self._sum * math.exp((self._last_s - now) / self._over_s) + rows
        self._last_s = now

    def at(self, now: float) -> float:
        if self._first_s is None:
            return 0.0
        seen = 1.0 - math.exp((self._first_s - now - _BEGIN_S) / self._over_s)
        return self._sum * math.exp((self._last_s - now) / self._over_s) / (self._over_s * seen)


class Demand:
    """The requests that came, whether they were taken or not.

    ``left_s``: how far away their deadlines are in the harmonic mean, in which near ones count most, or the
    end of patience if that is sooner. ``tight_s``: nine of ten are no nearer than this.
    """

    def __init__(self, patience_s: float) -> None:
        self.left_s = self.tight_s = patience_s
        self._patience_s = patience_s
        self._count = 0
        self._now, self._lately, self._lasting = _Rate(_NOW_S), _Rate(_LATELY_S), _Rate(_LASTING_S)
        self._lost = _Rate(_LASTING_S)
        self._last_s = 0.0
        self._rows = self._rows2 = 0.0
        self._gap_s = self._gap2 = 0.0

    def came(self, request: Request, now: float) -> None:
        """``request`` was offered."""
        if not self._count:
            self._lost.came(0, now)
        self._count += 1
        weight = 1.0 / min(_MANY, self._count)
        self._rows += weight * (request.rows - self._rows)
        self._rows2 += weight * (request.rows * request.rows - self._rows2)
        left_s = min(request.deadline_s - now, self._patience_s)
        self.left_s = 1.0 / (1.0 / self.left_s + weight * (1.0 / left_s - 1.0 / self.left_s))
        if left_s < self.tight_s:
            self.tight_s = max(left_s, self.tight_s * _DOWN)
        else:
            self.tight_s = min(left_s, self.tight_s * _UP)
        if self._count > 1:
            # Whatever waits is done by then: a pause is one gap, however long, and not a burst after it.
            gap_s = min(now - self._last_s, self.left_s)
            weight = 1.0 / min(_MANY, self._count - 1)
            self._gap_s += weight * (gap_s - self._gap_s)
            self._gap2 += weight * (gap_s * gap_s - self._gap2)
        self._last_s = now
        self._now.came(request.rows, now)
        self._lately.came(request.rows, now)
        self._lasting.came(request.rows, now)

    def lost(self, rows: int, now: float) -> None:
        """So many rows that were offered were refused, as they could not be in time, or were not in time."""
        self._lost.came(rows, now)

    def rate(self, now: float) -> float:
        """Rows per second that come: those of the past, which count the less the longer ago they came.

        As soon as more come at once than chance has it, by the variance of a moving average, these count.
        """
        lately, at_once = self._lately.at(now), self._now.at(now)
        if at_once <= lately or not self._gap_s:
            return lately
        return max(lately, at_once - _SIGMAS * math.sqrt(self._variance(lately) / (2.0 * _NOW_S)))

    def lasts(self, row_s: float, now: float) -> float:
        """How clear it is, 0..1, that for long more has come than can be done if a row takes so long."""
        load = self._lasting.at(now) * row_s
        return min(1.0, max(0.0, (load - _FULL) / (_OVERLOAD - _FULL)))

    def price(self, rows: float, speed: Speed, workers: int, now: float) -> float:
        """The chance, 0..1, that a second of the workers that is used now is missed later.

        ``rows``: that wait. ``speed``: of the fastest variant. It is missed if more comes, before all that
        waits is done, than can be done by its deadline. What waits, counted in the time that it takes, goes
        up and down by chance, like a random walk that drifts down as long as less comes than the workers can
        do: the chance to be above a height is the load, and falls exponentially with the height (Kingman).
        And it is missed, whatever is predicted, while requests are lost.
        """
        return max(self._losing(now), self._missing(rows, speed, workers, now))

    def _missing(self, rows: float, speed: Speed, workers: int, now: float) -> float:
        """As :meth:`price`, by what comes and waits alone."""
        row_s = speed.row_s / workers
        room_s = self.left_s - speed.cost(speed.best).within_s() - rows * row_s
        rate = self.rate(now)
        load = rate * row_s
        if load >= 1.0 or room_s <= 0.0:
            return min(1.0, load)
        scatter = max(1e-12, _UNSURE * self._scatter(rate, speed, workers))
        return load * math.exp(-2.0 * (1.0 - load) * room_s / scatter)

    def _losing(self, now: float) -> float:
        """How clear it is, 0..1, that not all is done that is asked for: by what was lost lately."""
        lost = self._lost.at(now)
        return min(1.0, _LOSSES * lost / max(self._lasting.at(now), 1e-9)) if lost else 0.0

    def _scatter(self, rate: float, speed: Speed, workers: int) -> float:
        """The variance of the time that waits, which a second adds to it."""
        row_s = speed.row_s / workers
        cost = speed.cost(speed.best)
        computing = cost.variance / max(cost.mean_s, 1e-9) / workers
        if not self._gap_s:
            return computing
        return computing + self._variance(rate) * row_s * row_s

    def _variance(self, rate: float) -> float:
        """The variance of the rows that come in a second, if in the mean they are ``rate``."""
        gaps = max(0.0, self._gap2 / (self._gap_s * self._gap_s) - 1.0)
        rows = max(0.0, self._rows2 - self._rows * self._rows) + gaps * self._rows * self._rows
        return rate / self._rows * rows
