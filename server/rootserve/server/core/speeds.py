"""What batches of a variant cost on a kind of worker, and how large they had best be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rootserve.server.core.latency import PIXELS, LatencyTable

_NEARLY_BEST = 0.97
"""Share of the best throughput at which more rows in a batch gain nothing worth their wait."""


class Speed:
    """Of batches of one variant on workers of one kind.

    Throughput is a matter of what batches usually take: ``best`` are the rows from which on larger ones
    are hardly more efficient, and a row takes ``row_s`` in one of those. Promises are a matter of what they
    take at most: ``safe`` and ``safe_row_s`` are the same of the bounds, and ``spare_s`` what a batch takes
    besides its rows, which another row in it saves.
    """

    __slots__ = ("_bound", "_known", "_middle", "best", "row_s", "safe", "safe_row_s", "spare_s")

    def __init__(
        self, table: LatencyTable, variant: str, kind: str, form: str, max_rows: int
    ) -> None:
        def bound(rows: int) -> float:
            return table.bound(variant, rows, kind, form) or 0.0

        def middle(rows: int) -> float:
            return table.middle(variant, rows, kind, form) or 0.0

        self._bound, self._middle = bound, middle
        self._known: dict[int, float] = {}
        sizes = [rows for rows in table.sizes(variant, kind) if rows < max_rows]
        sizes.append(max_rows)
        self.best, self.row_s = _efficient(sizes, middle)
        self.safe, self.safe_row_s = _efficient(sizes, self.seconds)
        more = (self.seconds(self.safe) - self.seconds(1)) / max(1, self.safe - 1)
        self.spare_s = max(0.0, self.seconds(1) - more)

    def seconds(self, rows: int) -> float:
        """What a batch of ``rows`` takes at most; 0 as long as nothing is known."""
        seconds = self._known.get(rows)
        if seconds is None:
            seconds = self._known[rows] = self._bound(rows)
        return seconds

    def usual_s(self, rows: int) -> float:
        """What a batch of ``rows`` usually takes; 0 as long as nothing is known."""
        return self._middle(rows)


def _efficient(sizes: Sequence[int], seconds: Callable[[int], float]) -> tuple[int, float]:
    """The fewest rows that are nearly as efficient as any, and what one of them takes."""
    costs = [(rows, seconds(rows) / rows) for rows in sizes]
    least = min(cost for _, cost in costs)
    return next((rows, cost) for rows, cost in costs if cost * _NEARLY_BEST <= least)


class Speeds:
    """The speeds that follow from a table of latencies as it is now."""

    def __init__(self, table: LatencyTable, max_rows: int) -> None:
        self.table = table
        self._max_rows = max_rows
        self._known: dict[tuple[str, str, str], Speed] = {}
        self._row_s: dict[tuple[str, frozenset[str]], float] = {}
        self._version = -1

    def of(self, variant: str, kind: str, form: str = PIXELS) -> Speed:
        """Of batches of ``variant`` on workers of ``kind``."""
        if self._version != self.table.version:
            self._forget()
        key = (variant, kind, form)
        speed = self._known.get(key)
        if speed is None:
            speed = self._known[key] = Speed(self.table, *key, self._max_rows)
        return speed

    def row_s(self, variant: str, kinds: frozenset[str]) -> float:
        """What a row of ``variant`` takes on the fastest of ``kinds``; infinite where nothing is known."""
        if self._version != self.table.version:
            self._forget()
        key = (variant, kinds)
        known = self._row_s.get(key)
        if known is None:
            known = self._row_s[key] = min(
                (self.of(variant, kind).row_s for kind in kinds if self.table.knows(variant, kind)),
                default=math.inf,
            )
        return known

    def _forget(self) -> None:
        self._version = self.table.version
        self._known.clear()
        self._row_s.clear()
