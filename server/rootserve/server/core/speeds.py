"""What batches of a variant cost on a kind of worker, and how large they had best be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

from rootserve.server.core.latency import PIXELS, Z99, LatencyTable, Plain, State

_NEARLY_BEST: Final = 0.97
"""Share of the best throughput that counts as the best: less is noise."""

_FATTEST: Final = 2.0
"""So many means one batch in a hundred takes longer than the mean, at most.

What takes longer still is an accident of the machine: to keep that time free for each batch would refuse far
more than such accidents spoil.
"""


@final
class Cost:
    """What a batch takes in the mean, its variance, and how much longer one in a hundred takes, in seconds.

    Batches that follow each other are hardly ever all slow. All three of them add up: ``tail`` is what one
    in a hundred takes beyond what it would if times were normally distributed, times the variance, so that it
    fades as the sum comes nearer to that distribution (the second term of a Cornish-Fisher expansion).
    """

    __slots__ = ("mean_s", "tail", "variance")

    def __init__(self, mean_s: float, variance: float, tail: float) -> None:
        self.mean_s, self.variance, self.tail = mean_s, variance, tail

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cost) and (
            (self.mean_s, self.variance, self.tail) == (other.mean_s, other.variance, other.tail)
        )

    def __hash__(self) -> int:
        return hash((self.mean_s, self.variance, self.tail))

    def __repr__(self) -> str:
        return f"Cost(mean_s={self.mean_s}, variance={self.variance}, tail={self.tail})"

    def within_s(self, caution: float = 1.0) -> float:
        """What it takes at most, with so much caution; with 1, but for one in a hundred."""
        return self.mean_s + caution * beyond_s(self.variance, self.tail)


def beyond_s(variance: float, tail: float) -> float:
    """By how much one in a hundred takes longer than the mean."""
    return Z99 * math.sqrt(variance) + tail / variance if variance else 0.0


_FURTHER: Final = 2.0
"""What passes between batches may be so many times as much before it is looked at anew what that changes."""


class Batches:
    """Batches of one variant on workers of one kind, at a pace of 1, as a table knows them.

    ``sizes``: rows, up to the most that there may be, and what so many typically take.
    """

    __slots__ = ("_known", "_of", "sizes")

    def __init__(
        self, table: LatencyTable, variant: str, kind: str, form: str, max_rows: int
    ) -> None:
        self._of = table, variant, kind, form
        self._known: dict[int, Plain] = {}
        smaller = [rows for rows in table.sizes(variant, kind) if rows < max_rows]
        self.sizes = [
            (rows, table.typical_s(variant, rows, kind, form)) for rows in (*smaller, max_rows)
        ]

    def of(self, rows: int) -> Plain:
        """What those of ``rows`` take."""
        known = self._known.get(rows)
        if known is None:
            table, variant, kind, form = self._of
            known = self._known[rows] = table.plain(variant, rows, kind, form)
        return known


class Speed:
    """Of ``batches`` at the pace at which workers of their kind are.

    ``best`` are the most rows that a batch may have without being less efficient than others, also in what
    passes between two batches, and a row takes ``row_s`` in one of those. Sizes are compared by what they
    typically take: a few slow batches of one size must not put an end to all of that size, from which
    nobody would learn that they are no longer slow. ``spare_s`` is what a batch takes besides its rows,
    which another row in it saves.
    """

    __slots__ = (
        "_costs",
        "_means_s",
        "_same_s",
        "_state",
        "batches",
        "best",
        "row_s",
        "spare_s",
        "version",
    )

    def __init__(self, batches: Batches, state: State, like: Speed | None = None) -> None:
        """``state``: what the table knows, of ``batches``. ``like``: one that differs in its inflation."""
        self.batches, self._state = batches, state
        self.version = -1
        """Of the table, when it was looked at last whether this still holds."""
        self._costs: dict[int, Cost] = {}
        self._means_s: dict[int, float] = {}
        self.best: int
        self.row_s: float
        self.spare_s: float
        self._same_s = state.hand_over_s, state.hand_over_s
        """From the first to the second of these passing between batches, ``best`` is the same."""
        if like is not None:
            self._means_s, self._same_s = like._means_s, like._same_s  # noqa: SLF001 - its own class
            self.best, self.row_s, self.spare_s = like.best, like.row_s, like.spare_s
            return
        self.best = _efficient(batches.sizes, state.factor, state.hand_over_s)
        best_s, one_s = self.mean_s(self.best), self.mean_s(1)
        self.row_s = best_s / self.best
        more_s = (best_s - one_s) / max(1, self.best - 1)
        self.spare_s = max(0.0, one_s - more_s)

    def is_of(self, state: State) -> bool:
        """Whether ``batches`` are still the same once ``state`` is what the table knows."""
        return self._state.series == state.series

    def once(self, state: State) -> Speed:
        """What it is once ``state``, of the same batches, is what the table knows: mostly nearly the same."""
        if self._state.factor != state.factor or not self._is_best(state):
            return Speed(self.batches, state)
        if self._state.inflation == state.inflation:
            return self
        return Speed(self.batches, state, like=self)

    def _is_best(self, state: State) -> bool:
        """Whether ``best`` are still the most rows without being less efficient."""
        least_s, most_s = self._same_s
        each_s = state.hand_over_s
        if least_s <= each_s <= most_s:
            return True
        sizes, factor = self.batches.sizes, state.factor
        if self.best != _efficient(sizes, factor, each_s):
            return False
        # What passes changes a little with many a batch: as far as this, it need not be looked at again.
        further_s = each_s / _FURTHER if each_s < least_s else each_s * _FURTHER
        if self.best == _efficient(sizes, factor, further_s):
            each_s = further_s
        self._same_s = min(least_s, each_s), max(most_s, each_s)
        return True

    @property
    def is_known(self) -> bool:
        """Whether any batch was measured."""
        return self._state.series[0] is not None

    def mean_s(self, rows: int) -> float:
        """What a batch of ``rows`` takes in the mean; nothing as long as nothing is known."""
        known = self._means_s.get(rows)
        if known is None:
            known = self._means_s[rows] = self.batches.of(rows).mean_s * self._state.factor
        return known

    def cost(self, rows: int) -> Cost:
        """What a batch of ``rows`` takes; nothing as long as nothing is known."""
        known = self._costs.get(rows)
        if known is None:
            plain, state = self.batches.of(rows), self._state
            known = self._costs[rows] = cost_of(plain, state.factor, state.inflation)
        return known

    @property
    def pace(self) -> tuple[float, float]:
        """How many times as long as at a pace of 1 batches take, and as they should at most."""
        return self._state.factor, self._state.inflation


def cost_of(plain: Plain, factor: float, inflation: float) -> Cost:
    """What batches cost that take ``plain`` at a pace of 1; the others are those of a :class:`State`."""
    mean_s = plain.mean_s * factor
    more_s = max(0.0, plain.bound_s * factor * inflation - mean_s)
    more_s = min(more_s, _FATTEST * mean_s)
    variance = min(mean_s**2 * plain.scatter, (more_s / Z99) ** 2)
    return Cost(mean_s, variance, (more_s - Z99 * math.sqrt(variance)) * variance)


def _efficient(sizes: Sequence[tuple[int, float]], factor: float, each_s: float) -> int:
    """The most rows that are nearly as efficient as any, of rows and what batches of them take.

    ``factor``: how many times as long it takes; ``each_s``: what every batch takes besides.
    """
    costs = [(each_s + seconds * factor) / rows for rows, seconds in sizes]
    enough = min(costs)
    at = len(costs) - 1
    while costs[at] * _NEARLY_BEST > enough:
        at -= 1
    return sizes[at][0]


class Speeds:
    """The speeds that follow from a table of latencies as it is now."""

    def __init__(self, table: LatencyTable, max_rows: int) -> None:
        self.table = table
        self._max_rows = max_rows
        self._known: dict[tuple[str, str, str], Speed] = {}
        self._each: dict[tuple[tuple[str, ...], str, str], tuple[Speed, ...]] = {}
        self._means_s: dict[tuple[tuple[str, ...], str, int, str], tuple[float, ...]] = {}
        self._row_s: dict[tuple[str, frozenset[str], str], float] = {}
        self._fastest: dict[tuple[tuple[str, ...], frozenset[str], str], str] = {}
        self._version = -1

    def of(self, variant: str, kind: str, form: str = PIXELS) -> Speed:
        """Of batches of ``variant`` on workers of ``kind``."""
        if self._version != self.table.version:
            self._forget()
        key = (variant, kind, form)
        speed = self._known.get(key)
        if speed is None or speed.version != self._version:
            state = self.table.state(variant, kind, form)
            if speed is None or not speed.is_of(state):
                batches = Batches(self.table, variant, kind, form, self._max_rows)
                speed = Speed(batches, state)
            else:
                speed = speed.once(state)
            speed.version = self._version
            self._known[key] = speed
        return speed

    def each(self, variants: tuple[str, ...], kind: str, form: str = PIXELS) -> tuple[Speed, ...]:
        """Of batches of each of ``variants`` on workers of ``kind``."""
        if self._version != self.table.version:
            self._forget()
        key = (variants, kind, form)
        known = self._each.get(key)
        if known is None:
            known = tuple([self.of(variant, kind, form) for variant in variants])
            self._each[key] = known
        return known

    def means_s(
        self, variants: tuple[str, ...], kind: str, rows: int, form: str = PIXELS
    ) -> tuple[float, ...]:
        """What a batch of ``rows`` takes in the mean, of each of ``variants`` on workers of ``kind``."""
        speeds = self.each(variants, kind, form)
        key = (variants, kind, rows, form)
        known = self._means_s.get(key)
        if known is None:
            known = self._means_s[key] = tuple(speed.mean_s(rows) for speed in speeds)
        return known

    def row_s(self, variant: str, kinds: frozenset[str], form: str = PIXELS) -> float:
        """What a row of ``variant`` takes on the fastest of ``kinds``; infinite where nothing is known."""
        if self._version != self.table.version:
            self._forget()
        key = (variant, kinds, form)
        known = self._row_s.get(key)
        if known is None:
            known = math.inf
            for kind in kinds:
                speed = self.of(variant, kind, form)
                if speed.is_known and speed.row_s < known:
                    known = speed.row_s
            self._row_s[key] = known
        return known

    def fastest(self, variants: tuple[str, ...], kinds: frozenset[str], form: str = PIXELS) -> str:
        """Of which a row takes least on the fastest of ``kinds``."""
        if self._version != self.table.version:
            self._forget()
        key = (variants, kinds, form)
        known = self._fastest.get(key)
        if known is None:
            rows_s = [math.inf] * len(variants)
            for kind in kinds:
                for number, speed in enumerate(self.each(variants, kind, form)):
                    if speed.is_known and speed.row_s < rows_s[number]:
                        rows_s[number] = speed.row_s
            known = variants[rows_s.index(min(rows_s))]
            self._fastest[key] = known
        return known

    def _forget(self) -> None:
        self._version = self.table.version
        self._each.clear()
        self._means_s.clear()
        self._row_s.clear()
        self._fastest.clear()
