"""How long batches take: measured when a model is loaded, and then learned from those that were done.

There are two figures of each batch. :meth:`LatencyTable.predict` is what it takes as a rule: a moving
average, which sizes between powers of two share. :meth:`LatencyTable.bound` is what it takes at most, but for
one in a hundred; promises are made of it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

PIXELS, FILES = "pixels", "files"

_WINDOW = 64
"""Batches of each size that are remembered."""

_GUARD = 3
"""Nothing takes less than the longest of so many last ones."""

_FEW = 8
_MARGIN = 0.25
"""Of fewer batches than ``_FEW`` the longest says little: up to so much is added to it."""

_STEADY = 0.05
"""A worker that became slower or faster by less than this has not changed."""

_CLEAR = 0.3
"""What the last few batches say of a worker varies by up to this by chance.

By less, medians do not follow it: variants that were not used lately would seem slower or faster than others.
"""

_DECAY = 0.97
"""What a batch that kept its bound leaves of what misses have added."""


class _Key(NamedTuple):
    kind: str
    model: str
    form: str


class _Series:
    """Batches of one key: the last ones by rows."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.recent: dict[int, deque[float]] = {}
        self._ordered: dict[int, list[float]] = {}
        """The same, shortest first."""
        self.counts: dict[int, int] = {}
        self.base: dict[int, float] = {}
        """What was learned first of each size: what the worker's level refers to."""
        self.level = 1.0
        """That of the worker when something was learned last."""
        self._bounds: dict[int, float] = {}
        self._middles: dict[int, float] = {}

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
        upper = 1 << _size_class(rows)
        at = bisect_left(self.sizes, upper // 2 + 1)
        if at < len(self.sizes) and self.sizes[at] <= upper:
            return self.sizes[at]
        return rows

    def learn(self, rows: int, seconds: float) -> None:
        size = self.size_of(rows)
        if size not in self.recent:
            self.restore(size, (), 0, seconds)
        elif size != rows:
            seconds *= self.between(self.base, size) / max(self.between(self.base, rows), 1e-9)
        recent, ordered = self.recent[size], self._ordered[size]
        if len(recent) == _WINDOW:
            del ordered[bisect_left(ordered, recent[0])]
        recent.append(seconds)
        insort(ordered, seconds)
        self.counts[size] += 1
        self._bounds.clear()
        self._middles.clear()

    def restore(self, size: int, recent: Iterable[float], count: int, base: float) -> None:
        """Batches of ``size`` rows that were learned before, all that is known of them."""
        self.recent[size] = deque(recent, maxlen=_WINDOW)
        self._ordered[size] = sorted(self.recent[size])
        self.counts[size], self.base[size] = count, base
        self.sizes = sorted(self.recent)

    def bound(self, rows: int) -> float:
        return self._of(self._bounds, self._bound_of, rows)

    def _bound_of(self, size: int) -> float:
        return _bound(self._ordered[size], self.recent[size])

    def middle(self, rows: int) -> float:
        return self._of(self._middles, self.median_of, rows)

    def median_of(self, size: int) -> float:
        ordered = self._ordered[size]
        return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2

    def _of(self, known: dict[int, float], figure: Callable[[int], float], rows: int) -> float:
        """The ``figure`` of the last batches of ``rows``, of which those in ``known`` are known."""
        seconds = known.get(rows)
        if seconds is None:
            at = bisect_left(self.sizes, rows)
            for size in self.sizes[max(0, at - 1) : at + 1]:
                if size not in known:
                    known[size] = figure(size)
            seconds = known[rows] = self.between(known, rows)
        return seconds


class _Level:
    """How a kind of worker is doing: its speed against what was learned first, and what misses add."""

    def __init__(self) -> None:
        self.level = 1.0
        self.inflation = 1.0


class LatencyTable:
    """Seconds that batches take, by kind of worker, model, rows, and form: pixels or picture files.

    When workers of a kind become slower or faster, so do those of their batches of which none was done
    lately.
    """

    def __init__(self, weight: float = 0.2) -> None:
        self._weight = weight
        self._averages: dict[tuple[str, str], dict[int, float]] = {}
        self._series: dict[_Key, _Series] = {}
        self._levels: dict[str, _Level] = {}
        self.version = 0
        """Grows with everything that is learned."""

    def learn(
        self,
        model: str,
        rows: int,
        seconds: float,
        kind: str = "",
        form: str = PIXELS,
        elapsed_s: float | None = None,
    ) -> None:
        """Take a batch of ``rows`` that took ``seconds`` into account.

        ``elapsed_s``: from its turn to its end, of which bounds are made: with what the hand-over and the
        reading of files take. As long as the computation, if it is not given.
        """
        averages = self._averages.setdefault((kind, model), {})
        size = _size_class(rows)
        average = averages.get(size, seconds)
        averages[size] = average + self._weight * (seconds - average)
        key = _Key(kind, model, form)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        level = self._levels.get(kind)
        if level is None:
            level = self._levels[kind] = _Level()
        elapsed_s = seconds if elapsed_s is None else elapsed_s
        if series.sizes:
            self._compare(series, level, rows, elapsed_s)
        series.learn(rows, elapsed_s)
        series.level = level.level
        self.version += 1

    def _compare(self, series: _Series, level: _Level, rows: int, seconds: float) -> None:
        """What a batch that took ``seconds`` says of its kind of worker."""
        bound = self._scaled(series, level, rows)
        if seconds > bound:
            level.inflation = min(2.0, level.inflation * min(1.5, seconds / max(bound, 1e-9)))
        else:
            level.inflation = 1.0 + (level.inflation - 1.0) * _DECAY
        base = series.between(series.base, rows)
        level.level += 0.1 * (min(4.0, seconds / max(base, 1e-9)) - level.level)

    def predict(self, model: str, rows: int, kind: str = "") -> float | None:
        """Expected seconds for a batch of ``rows``; None while nothing is known of the model there.

        A size that was not seen yet is told from the nearest one that was, in proportion to the rows when
        that one is smaller.
        """
        averages = self._averages.get((kind, model))
        if not averages:
            return None
        size = _size_class(rows)
        if size in averages:
            return averages[size]
        nearest = min(averages, key=lambda known: abs(known - size))
        return averages[nearest] * 2.0 ** max(0, size - nearest)

    def bound(self, model: str, rows: int, kind: str = "", form: str = PIXELS) -> float | None:
        """Seconds that 99 of 100 batches of ``rows`` take at most; None as for :meth:`predict`."""
        series = self._find(kind, model, form)
        return None if series is None else self._scaled(series, self._levels[kind], rows)

    def middle(self, model: str, rows: int, kind: str = "", form: str = PIXELS) -> float | None:
        """Seconds that half of the last batches of ``rows`` took at most; None as for :meth:`predict`."""
        series = self._find(kind, model, form)
        if series is None:
            return None
        return series.middle(rows) * self._change(series, self._levels[kind], _CLEAR)

    def knows(self, model: str, kind: str) -> bool:
        """Whether anything is known of ``model`` on workers of ``kind``."""
        return self._find(kind, model, PIXELS) is not None

    def sizes(self, model: str, kind: str) -> Sequence[int]:
        """Rows of which batches of ``model`` were measured on workers of ``kind``, smallest first."""
        series = self._find(kind, model, PIXELS)
        return series.sizes if series else ()

    def _find(self, kind: str, model: str, form: str) -> _Series | None:
        """The series of this form, or of the other one as long as nothing is known of this."""
        series = self._series.get(_Key(kind, model, form))
        if series is None:
            series = self._series.get(_Key(kind, model, PIXELS if form == FILES else FILES))
        return series

    def _scaled(self, series: _Series, level: _Level, rows: int) -> float:
        return series.bound(rows) * self._change(series, level) * level.inflation

    @staticmethod
    def _change(series: _Series, level: _Level, steady: float = _STEADY) -> float:
        """How many times as long as when ``series`` was learned such workers take."""
        change = level.level / series.level
        return 1.0 if abs(change - 1.0) <= steady else change

    def document(self) -> dict[str, Any]:
        """All that is known, as plain data; :meth:`from_document` makes the same table of it.

        ``latency`` has a row for each kind, model, form and number of rows: ``count`` batches in all,
        ``p50_s`` and ``p99_s`` of the last ones, which are ``recent_s``.
        """
        rows = [
            {
                "kind": key.kind,
                "model": key.model,
                "form": key.form,
                "rows": size,
                "count": series.counts[size],
                "p50_s": series.median_of(size),
                "p99_s": self._scaled(series, self._levels[key.kind], size),
                "base_s": series.base[size],
                "level": series.level,
                "recent_s": list(series.recent[size]),
            }
            for key, series in self._series.items()
            for size in series.sizes
        ]
        expected = [
            {"kind": kind, "model": model, "size_class": size, "seconds": seconds}
            for (kind, model), averages in self._averages.items()
            for size, seconds in averages.items()
        ]
        workers = [
            {"kind": kind, "level": level.level, "inflation": level.inflation}
            for kind, level in self._levels.items()
        ]
        return {"latency": rows, "averages": expected, "workers": workers}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LatencyTable:
        """The table that :meth:`document` told of.

        Of a row only ``kind``, ``model``, ``rows``, ``p50_s`` and ``p99_s`` must be there: without
        ``recent_s``, 99 of 100 batches took as long as these say.

        Raises:
            ValueError: if something of a row is missing or is no time; it names the row.
        """
        table = cls()
        for number, row in enumerate(document.get("latency", ())):
            try:
                key = _Key(str(row["kind"]), str(row["model"]), str(row.get("form", PIXELS)))
                size, p50_s, p99_s = int(row["rows"]), float(row["p50_s"]), float(row["p99_s"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"row {number} of the latency table is {row!r}, expected kind, model, rows, p50_s "
                    "and p99_s"
                ) from error
            if size < 1 or not 0.0 <= p50_s <= p99_s * 4 or key.form not in (PIXELS, FILES):
                raise ValueError(
                    f"row {number} of the latency table is {row!r}, expected at least 1 row, times that "
                    f"are not negative, and {PIXELS} or {FILES} as form"
                )
            series = table._series.setdefault(key, _Series())
            recent = row.get("recent_s") or [p99_s] * 2 + [p50_s] * (_WINDOW - 2)
            count, base_s = int(row.get("count", 0)), float(row.get("base_s", p50_s))
            series.restore(size, map(float, recent), count, base_s)
            series.level = float(row.get("level", 1.0))
            averages = table._averages.setdefault((key.kind, key.model), {})
            averages.setdefault(_size_class(size), p50_s)
            table._levels.setdefault(key.kind, _Level())
        for row in document.get("averages", ()):
            averages = table._averages.setdefault((row["kind"], row["model"]), {})
            averages[int(row["size_class"])] = float(row["seconds"])
        for row in document.get("workers", ()):
            level = table._levels.setdefault(str(row["kind"]), _Level())
            level.level, level.inflation = float(row["level"]), float(row["inflation"])
        return table


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


def _size_class(rows: int) -> int:
    return (rows - 1).bit_length()
