"""How large batches of a model should be, from how long they take on its worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Latency = Sequence[tuple[int, float]]
"""Rows and the seconds that a batch of so many takes, smallest first; as measured when a model is loaded."""

HAND_OVER_S = 0.0003
"""What a batch costs besides its computation: two wake-ups and a look at the queue."""

_GOOD_ENOUGH = 0.95
"""Share of the best throughput at which a batch is large enough: more only makes its first rows wait."""

_SHORT_S = 0.04
"""A batch that takes no longer than this is not too large: its first rows wait for little, and the service,
which has its turn on the same processors, is woken up more seldom."""

_WASTEFUL = 1.25
"""A batch whose rows take so many times what they take at best is too large. Less may be noise."""

_WORTH_WAITING = 1.1
"""By how much more rows at once must raise the throughput for an idle worker to wait for them."""


class BatchSize(NamedTuple):
    """``rows`` that a batch should have at most; whether an idle worker should wait for more of them."""

    rows: int
    waits: bool


def choose(latency: Latency) -> BatchSize:
    """The smallest measured size that gives nearly the best throughput, or a larger one that is short.

    Raises:
        ValueError: if nothing was measured.
    """
    if not latency:
        raise ValueError("no latency was measured, expected at least that of one row")
    rates = [(rows, rows / (seconds + HAND_OVER_S)) for rows, seconds in latency]
    enough = _GOOD_ENOUGH * max(rate for _, rate in rates)
    rows = next(rows for rows, rate in rates if rate >= enough)
    best_s = min(seconds / rows for rows, seconds in latency)
    for larger, seconds in latency:
        if larger > rows and seconds <= min(_SHORT_S, _WASTEFUL * larger * best_s):
            rows = larger
    computed = {rows: rows / max(seconds, 1e-9) for rows, seconds in latency}
    return BatchSize(rows, computed[rows] >= _WORTH_WAITING * computed[latency[0][0]])
