"""How callers share the workers: each as much of their time as it asks for, up to the same for all.

What a request costs is the time that a worker is predicted to need for it. What each caller asks for is
averaged over a second; what is left by those that want less than an equal share is shared by the others. A
caller that asks for more than its share gets no promise that takes up the room of the others: whoever comes
seldom finds it, and as long as there is enough for all, nothing is kept free. Requests without deadlines are
due one after another for each caller, as if each had its share of the workers to itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from rootserve.server.core.queue import Request

_AVERAGE_S: Final = 1.0
_SPREAD: Final = 3.0
"""So many standard deviations more than the mean may come of a caller that keeps to its share."""
_GONE: Final = 1e-4
"""Of a worker: who asks for less is forgotten."""


class _Caller:
    __slots__ = ("asked", "asked_s", "cost_s", "held_s", "turn_s")

    def __init__(self) -> None:
        self.asked = 0.0
        """Seconds of a worker per second, at ``asked_s``."""
        self.asked_s = -math.inf
        self.cost_s = 0.0
        """Seconds of a worker that its last request takes."""
        self.held_s = 0.0
        """Seconds of a worker that wait."""
        self.turn_s = -math.inf
        """When what has come without a deadline would be done with a share of the workers."""

    def rate(self, now: float) -> float:
        return self.asked * math.exp((self.asked_s - now) / _AVERAGE_S) if self.asked else 0.0


class Shares:
    """What callers ask for, and what of it waits."""

    def __init__(self) -> None:
        self._callers: dict[str, _Caller] = {}

    def asked(self, caller: str, seconds: float, now: float) -> None:
        """``caller`` asks for so much of a worker's time, whether it gets it or not."""
        known = self._callers.get(caller)
        if known is None:
            self._forget(now)
            known = self._callers[caller] = _Caller()
        known.asked = known.rate(now) + seconds / _AVERAGE_S
        known.asked_s = now
        known.cost_s = seconds

    def hold(self, caller: str, seconds: float) -> None:
        """A request of ``caller`` waits that takes so much of a worker's time."""
        self._callers[caller].held_s += seconds

    def release(self, requests: Sequence[Request], seconds: Sequence[float]) -> None:
        """Those wait no more, for each of which so much was held; nothing, if it had been released."""
        name, known = "", self._callers.get("")
        for request, held_s in zip(requests, seconds, strict=True):
            if held_s:
                if known is None or request.caller != name:
                    name, known = request.caller, self._callers[request.caller]
                known.held_s -= held_s

    def active(self, now: float) -> int:
        """How many callers have asked for something lately."""
        return sum(1 for caller in self._callers.values() if caller.rate(now) > _GONE) or 1

    def reserved_s(self, caller: str, horizon_s: float, workers: int, now: float) -> float:
        """Seconds of all workers, within ``horizon_s``, that ``caller`` must leave to others.

        Nothing, if it gets all it asks for.
        """
        if len(self._callers) < 2:
            return 0.0
        shares = self._divide(workers, now)
        if shares[caller] >= self._callers[caller].rate(now):
            return 0.0
        return sum(
            max(0.0, self._room_s(name, share * horizon_s))
            for name, share in shares.items()
            if name != caller
        )

    def _room_s(self, caller: str, mean_s: float) -> float:
        """What may yet come of a caller of which ``mean_s`` wait in the mean: its arrivals are no grid."""
        known = self._callers[caller]
        return mean_s + _SPREAD * math.sqrt(mean_s * known.cost_s) - known.held_s

    def due_s(
        self, caller: str, seconds: float, arrived_s: float, workers: int, now: float
    ) -> float:
        """From when on patience with a request counts that has no deadline."""
        known = self._callers[caller]
        begin_s = max(arrived_s, known.turn_s)
        known.turn_s = begin_s + seconds * self.active(now) / max(1, workers)
        return begin_s

    def _divide(self, workers: int, now: float) -> dict[str, float]:
        """Seconds per second for each caller: what it asks for, or an equal part of what is left."""
        rates = sorted((caller.rate(now), name) for name, caller in self._callers.items())
        left, shares = float(workers), dict[str, float]()
        for number, (rate, name) in enumerate(rates):
            shares[name] = share = min(rate, left / (len(rates) - number))
            left -= share
        return shares

    def _forget(self, now: float) -> None:
        self._callers = {
            name: caller
            for name, caller in self._callers.items()
            if caller.held_s > 0.0 or caller.rate(now) > _GONE or caller.turn_s > now
        }
