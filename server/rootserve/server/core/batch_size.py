"""How large batches of a model should be, from how long they take on its worker.

What others on the machine hold a batch up by is left out when it is timed, but caches and the clock rate are
shared: now and then it still takes twice as long. So the sizes are timed in turns, a turn is compared with
itself alone, and two sizes count as alike unless every turn shows the same one to be the faster
(:func:`settle`). It is enough once further turns change nothing (:func:`is_sure`).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

Latency = Sequence[tuple[int, float]]
"""Rows and the seconds that a batch of so many takes, smallest first; as measured when a model is loaded."""

HAND_OVER_S: Final = 0.0003
"""What a batch costs besides its computation: two wake-ups and a look at the queue."""

_GOOD_ENOUGH: Final = 0.9
"""Share of the best throughput at which a batch is large enough: more only makes its first rows wait.

What is nearer than that is a tie, for so much is noise: it goes to the smallest, and then to the largest that
is short."""

_SHORT_S: Final = 0.04
"""A batch that takes no longer than this is not too large: its first rows wait for little, and the service,
which has its turn on the same processors, is woken up more seldom."""

_WASTEFUL: Final = 1.25
"""A batch whose rows take so many times what they take at best is too large. Less may be noise."""

_TRIED_S: Final = 1 / 3
"""No larger batch is tried once those tried take so long together."""

_UNCHANGED: Final = 2
"""So many further turns that change nothing are enough."""

_WORTH_WAITING: Final = 1.1
"""By how much more rows at once must raise the throughput for an idle worker to wait for them."""


class BatchSize(NamedTuple):
    """``rows`` that a batch should have at most; whether an idle worker should wait for more of them."""

    rows: int
    waits: bool


def may_grow(tried: Latency) -> bool:
    """Whether batches larger than those ``tried``, each timed once, could be chosen.

    Not if the largest is no longer short and gives no more than a smaller one: even if it was timed at twice
    what it takes, the next one is not short. Nor if they take too long to be tried.
    """
    *smaller, (rows, seconds) = tried
    if sum(each_s for _, each_s in tried) > _TRIED_S:
        return False
    if seconds <= _SHORT_S or not smaller:
        return True
    least_s = min(each_s / each for each, each_s in smaller)
    return seconds / rows < _GOOD_ENOUGH * least_s


def is_sure(sizes: Sequence[int], turns: Sequence[Sequence[float]]) -> bool:
    """Whether the last of ``turns`` changed nothing about what is chosen; they are as for :func:`settle`."""
    if len(sizes) == 1:
        return True
    if len(turns) <= _UNCHANGED:
        return False
    counts = range(len(turns) - _UNCHANGED, len(turns) + 1)
    return len({choose(settle(sizes, turns[:count])) for count in counts}) == 1


def settle(sizes: Sequence[int], turns: Sequence[Sequence[float]]) -> Latency:
    """How long batches of ``sizes`` rows take, of ``turns`` in which each size was timed once, in seconds.

    What a row costs more or less in a batch than in the next smaller one is what all turns show of it: the
    ratio nearest to 1, and 1 where some show more and some less. As long as one turn was not disturbed,
    no difference is found that is not there, and none too large. How long it all takes is that of the
    fastest turn.

    Raises:
        ValueError: if there are no sizes or no turns, or a turn has not one time for each size.
    """
    if not sizes or not turns or any(len(turn) != len(sizes) for turn in turns):
        came = [len(turn) for turn in turns]
        raise ValueError(f"turns of {came} times came, expected one or more, each of {len(sizes)}")
    costs = [
        [max(seconds, 1e-9) / rows for rows, seconds in zip(sizes, turn, strict=True)]
        for turn in turns
    ]
    shape = [1.0]
    for at in range(1, len(sizes)):
        ratios = [cost[at] / cost[at - 1] for cost in costs]
        shape.append(shape[-1] * max(min(ratios), min(1.0, max(ratios))))
    level = min(
        median(cost / share for cost, share in zip(turn, shape, strict=True)) for turn in costs
    )
    return tuple((rows, rows * level * share) for rows, share in zip(sizes, shape, strict=True))


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
