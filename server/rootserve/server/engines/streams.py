"""How many images an engine computes at a time: found by measurement where there are many processors.

As many images as processors need no thread to wait for another, but each wants memory and caches of its own;
with fewer at a time, each gets several threads. Which is better is the processor's and the network's to say.
"""

from __future__ import annotations

from collections.abc import Callable

MOST_STREAMS = 64
"""Images at a time at most: one process would not hand over more."""

_AS_GOOD = 0.98
"""Share of the best rate that counts as the same: with fewer images at a time each is done sooner."""

_WORSE = 0.9
"""Share of the best rate from which on fewer streams are not tried any more."""


def best_streams(threads: int, rate: Callable[[int], float]) -> int:
    """The best number of images at a time for ``threads`` in all, by the ``rate`` of a number.

    Every number halves the one before, so that threads are left over by none. With up to two threads there is
    nothing to measure.
    """
    streams = min(threads, MOST_STREAMS)
    if streams <= 2:
        return streams
    rates = {streams: rate(streams)}
    while streams >= 4:
        streams //= 2
        rates[streams] = rate(streams)
        if rates[streams] < _WORSE * max(rates.values()):
            break
    enough = _AS_GOOD * max(rates.values())
    return min(number for number, found in rates.items() if found >= enough)
