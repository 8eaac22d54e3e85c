"""How long batches take: measured when a model is loaded, and then learned from those that were done.

There are three figures of each batch. :meth:`LatencyTable.predict` is what it takes lately: a moving
average, which sizes between powers of two share. :attr:`Plain.mean_s` is what it takes in the mean of
many, by which variants are compared, and :meth:`LatencyTable.bound` what it takes at most, but for one in a
hundred; promises are made of both. These two are kept as at a worker's first pace, so that a worker that
becomes slower makes no variant look slower than those that were not used lately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import exp, log
from typing import Any, Final, NamedTuple, final

from rootserve.server.core.batch_size import HAND_OVER_S
from rootserve.server.core.series import LONG, WINDOW, Series, size_class

PIXELS: Final = "pixels"
FILES: Final = "files"

_CLEAR: Final = 0.3
"""What the last few batches say of a worker's pace varies by up to this by chance (as a logarithm)."""

_PACE: Final = 0.07
"""How much of a worker's pace the last batch makes up."""

_LONGEST_S: Final = 0.01
"""Of what passes until an idle worker begins, more is chance."""

_FOLLOWED: Final = 30.0
"""So many batches make up a worker's pace."""

_DECAY: Final = 0.97
"""What a batch that kept its bound leaves of what misses have added."""

_FILE_S: Final = 0.005
_JUMP: Final = 4.0
"""A picture file counts for no more than the first of these, or so many times what was known.

A single slow one must not speak for those of all models.
"""

Z99: Final = 2.326
"""The 99th percentile of the standard normal distribution."""


class _Key(NamedTuple):
    kind: str
    model: str
    form: str


@dataclass(slots=True)
class _Pace:
    """How a kind of worker is doing, against what was learned first.

    ``factor``: how many times as long as at first it takes for anything. It follows the last batches
    (``lately``, a logarithm) when these differ clearly, for some more (``follows``). ``inflation``: what
    misses add to bounds.
    ``hand_over_s``: what passes until an idle one begins. ``file_s``: what reading a picture file takes.
    """

    hand_over_s: float
    lately: float = 0.0
    follows: float = 0.0
    factor: float = 1.0
    inflation: float = 1.0
    file_s: float = 0.0

    def follow(self, ratio: float) -> None:
        """A batch took so many times as long as such ones typically take at a pace of 1."""
        self.lately += _PACE * (log(min(4.0, max(0.25, ratio))) - self.lately)
        if abs(self.lately - log(self.factor)) > _CLEAR:
            self.follows = _FOLLOWED
        if self.follows > 0.0:
            self.follows -= 1.0
            self.factor = exp(self.lately)


@final
class State:
    """What a :class:`LatencyTable` knew of a model on a kind of worker, to be compared.

    ``series``: of its batches, and how often they had changed; last, what a picture file adds to it. The rest
    is of the kind of worker: its pace, what passes until an idle one begins, and what misses add to bounds.
    """

    __slots__ = ("factor", "hand_over_s", "inflation", "series")

    def __init__(
        self,
        series: tuple[Series | None, Series | None, int, int, float],
        factor: float,
        hand_over_s: float,
        inflation: float,
    ) -> None:
        self.series = series
        self.factor, self.hand_over_s, self.inflation = factor, hand_over_s, inflation


@final
class Plain:
    """What batches of some rows take at a pace of 1: in the mean, mostly at most, and typically.

    ``scatter``: their variance, over the square of their mean.
    """

    __slots__ = ("bound_s", "mean_s", "scatter", "typical_s")

    def __init__(self, mean_s: float, bound_s: float, typical_s: float, scatter: float) -> None:
        self.mean_s, self.bound_s = mean_s, bound_s
        self.typical_s, self.scatter = typical_s, scatter


_NOTHING = Plain(0.0, 0.0, 0.0, 0.0)


class LatencyTable:
    """Seconds that batches take, by kind of worker, model, rows, and form: pixels or picture files.

    When workers of a kind become slower or faster, so do those of their batches of which none was done
    lately. And of a model of which no files were computed yet, they take so much more than pixels as those of
    other models do.
    """

    def __init__(self, weight: float = 0.2, hand_over_s: float = HAND_OVER_S) -> None:
        self._weight = weight
        self._hand_over_s = hand_over_s
        self._averages: dict[tuple[str, str], dict[int, float]] = {}
        self._series: dict[tuple[str, str, str], Series] = {}
        self._paces: dict[str, _Pace] = {}
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

        ``elapsed_s``: from its turn to its end, of which means and bounds are made: with what the reading of
        files takes. As long as the computation, if it is not given.
        """
        averages = self._averages.setdefault((kind, model), {})
        size = size_class(rows)
        average = averages.get(size, seconds)
        averages[size] = average + self._weight * (seconds - average)
        key = _Key(kind, model, form)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series()
        pace = self._pace(kind)
        elapsed_s = seconds if elapsed_s is None else elapsed_s
        if series.sizes:
            self._compare(series, pace, rows, elapsed_s)
        series.learn(rows, elapsed_s / pace.factor)
        if form == FILES and (pixels := self._series.get((kind, model, PIXELS))) is not None:
            more_s = max(0.0, elapsed_s / pace.factor - pixels.mean(rows)) / rows
            more_s = min(more_s, max(_FILE_S, _JUMP * pace.file_s))
            pace.file_s += self._weight * (more_s - pace.file_s)
        self.version += 1

    def handed_over(self, seconds: float, kind: str) -> None:
        """So much passed until an idle worker began."""
        pace = self._pace(kind)
        pace.hand_over_s += _PACE * (min(seconds, _LONGEST_S) - pace.hand_over_s)

    def hand_over_s(self, kind: str) -> float:
        """Seconds until an idle worker of ``kind`` begins with a batch."""
        return self._pace(kind).hand_over_s

    def _pace(self, kind: str) -> _Pace:
        pace = self._paces.get(kind)
        if pace is None:
            pace = self._paces[kind] = _Pace(self._hand_over_s)
        return pace

    def _compare(self, series: Series, pace: _Pace, rows: int, seconds: float) -> None:
        """What a batch that took ``seconds`` says of its kind of worker."""
        bound = series.bound(rows) * pace.factor * pace.inflation
        if seconds > bound:
            pace.inflation = min(2.0, pace.inflation * min(1.5, seconds / max(bound, 1e-9)))
        else:
            pace.inflation = 1.0 + (pace.inflation - 1.0) * _DECAY
        pace.follow(seconds / series.between(series.typical, rows))

    def predict(self, model: str, rows: int, kind: str = "") -> float | None:
        """Expected seconds for a batch of ``rows``; None while nothing is known of the model there.

        A size that was not seen yet is told from the nearest one that was, in proportion to the rows when
        that one is smaller.
        """
        averages = self._averages.get((kind, model))
        if not averages:
            return None
        size = size_class(rows)
        if size in averages:
            return averages[size]
        nearest = min(averages, key=lambda known: abs(known - size))
        return averages[nearest] * 2.0 ** max(0, size - nearest)

    def bound(self, model: str, rows: int, kind: str = "", form: str = PIXELS) -> float | None:
        """Seconds that 99 of 100 batches of ``rows`` take at most; None as for :meth:`predict`."""
        series = self._find(kind, model, form)
        if series is None:
            return None
        pace = self._paces[kind]
        longer = self._longer(series, kind, model, rows, form)
        return series.bound(rows) * longer * pace.factor * pace.inflation

    def sizes(self, model: str, kind: str) -> Sequence[int]:
        """Rows of which batches of ``model`` were measured on workers of ``kind``, smallest first."""
        series = self._find(kind, model, PIXELS)
        return series.sizes if series else ()

    def state(self, model: str, kind: str, form: str) -> State:
        """What all that is told of ``model`` there follows from; of the same state the same is told."""
        own = pixels = self._find(kind, model, PIXELS)
        if form != PIXELS:
            own = self._find(kind, model, form)
        pace = self._pace(kind)
        changes, pixels_changes = own.changes if own else 0, pixels.changes if pixels else 0
        file_s = pace.file_s if form == FILES and own is pixels else 0.0
        series = own, pixels, changes, pixels_changes, file_s
        return State(series, pace.factor, pace.hand_over_s, pace.inflation)

    def typical_s(self, model: str, rows: int, kind: str, form: str) -> float:
        """As :attr:`Plain.typical_s`, and nothing else of it."""
        series = self._find(kind, model, form)
        if series is None:
            return 0.0
        longer = self._longer(series, kind, model, rows, form)
        return series.between(series.typical, rows) * longer

    def plain(self, model: str, rows: int, kind: str, form: str) -> Plain:
        """Of batches of ``rows`` at a pace of 1; all nothing as long as nothing is known."""
        series = self._find(kind, model, form)
        if series is None:
            return _NOTHING
        mean_s, typical_s = series.mean(rows), series.between(series.typical, rows)
        scatter = max(0.0, (mean_s / typical_s) ** 2 - 1.0)
        longer = self._longer(series, kind, model, rows, form)
        return Plain(mean_s * longer, series.bound(rows) * longer, typical_s * longer, scatter)

    def _longer(self, series: Series, kind: str, model: str, rows: int, form: str) -> float:
        """How many times as long as ``series`` says it takes, if that is of pixels and files are computed."""
        if form == PIXELS or (kind, model, form) in self._series:
            return 1.0
        return 1.0 + rows * self._pace(kind).file_s / max(series.mean(rows), 1e-9)

    def _find(self, kind: str, model: str, form: str) -> Series | None:
        """The series of this form, or of the other one as long as nothing is known of this."""
        series = self._series.get((kind, model, form))
        if series is None:
            series = self._series.get((kind, model, PIXELS if form == FILES else FILES))
        return series

    def document(self) -> dict[str, Any]:
        """All that is known, as plain data; :meth:`from_document` makes the same table of it.

        ``latency`` has a row for each kind, model, form and number of rows: ``count`` batches in all,
        ``p50_s`` and ``p99_s`` as it is now. ``recent_s`` are the last ones, ``mean_s`` and ``typical_s``
        means of many, all at the pace at which workers were first.
        """
        rows = [
            {
                "kind": kind,
                "model": model,
                "form": form,
                "rows": size,
                "count": series.counts[size],
                "p50_s": series.median_of(size) * self._paces[kind].factor,
                "p99_s": self.bound(model, size, kind, form),
                "mean_s": series.means[size],
                "typical_s": series.typical[size],
                "recent_s": list(series.recent[size]),
            }
            for (kind, model, form), series in self._series.items()
            for size in series.sizes
        ]
        expected = [
            {"kind": kind, "model": model, "size_class": size, "seconds": seconds}
            for (kind, model), averages in self._averages.items()
            for size, seconds in averages.items()
        ]
        workers = [{"kind": kind, **asdict(pace)} for kind, pace in self._paces.items()]
        return {"latency": rows, "averages": expected, "workers": workers}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LatencyTable:
        """The table that :meth:`document` told of; see :meth:`read`.

        Raises:
            ValueError: if something of a row is missing or is no time; it names the row.
        """
        table = cls()
        table.read(document)
        return table

    def read(self, document: Mapping[str, Any]) -> None:
        """Know what a :meth:`document` tells of.

        Of a row only ``kind``, ``model``, ``rows``, ``p50_s`` and ``p99_s`` must be there: without
        ``recent_s``, 99 of 100 batches took as long as these say.

        Raises:
            ValueError: if something of a row is missing or is no time; it names the row.
        """
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
            series = self._series.setdefault(key, Series())
            recent = row.get("recent_s") or [p50_s] * (WINDOW - 2) + [p99_s] * 2
            spread = log(max(1.0, p99_s / p50_s)) / Z99 if p50_s else 0.0  # as of a log-normal one
            series.know(
                size,
                [float(seconds) for seconds in recent],
                int(row.get("count", LONG)),
                float(row.get("mean_s", p50_s * exp(spread**2 / 2))),
                float(row.get("typical_s", p50_s)),
            )
            averages = self._averages.setdefault((key.kind, key.model), {})
            averages.setdefault(size_class(size), p50_s)
            self._pace(key.kind)
        for row in document.get("averages", ()):
            averages = self._averages.setdefault((row["kind"], row["model"]), {})
            averages[int(row["size_class"])] = float(row["seconds"])
        for row in document.get("workers", ()):
            pace = self._pace(str(row["kind"]))
            for each in fields(pace):
                setattr(pace, each.name, float(row.get(each.name, getattr(pace, each.name))))
