"""A family of variants that is served as one model, and the requests that wait for any of them."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import NamedTuple

from rootserve.server.core.queue import Request

_RATE_S = 1.0
"""Over how long arrivals are averaged."""


class Member(NamedTuple):
    """A variant of a family: the share of images it gets right, 0..1.

    ``tie`` is half of the 95 % interval of that share: smaller differences count as none.
    """

    variant: str
    accuracy: float
    tie: float = 0.0


def may_compute(request: Request, member: Member) -> bool:
    """Whether ``member`` is accurate enough for ``request``, and one of those it may be computed by."""
    return request.floor <= member.accuracy and (
        not request.allowed or member.variant in request.allowed
    )


class Family:
    """The requests of one family that wait, by when they are due: their deadline, or what stands for one."""

    def __init__(self, name: str, members: tuple[Member, ...]) -> None:
        self.name = name
        self.members = members
        self.rows = 0
        self._order: list[tuple[float, int]] = []
        self._requests: dict[int, Request] = {}
        self._due: dict[int, float] = {}
        self._rate = 0.0
        self._rate_s = -math.inf

    def __iter__(self) -> Iterator[Request]:
        """The one that is due first comes first."""
        return (self._requests[request_id] for _, request_id in self._order)

    def __len__(self) -> int:
        return len(self._order)

    def __bool__(self) -> bool:
        return bool(self._order)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._requests

    def due(self) -> list[float]:
        """When each of the requests is to be done, in their order."""
        return [due_s for due_s, _ in self._order]

    @property
    def oldest(self) -> Request:
        """The request of the highest priority that has waited longest."""
        return min(
            self._requests.values(), key=lambda request: (request.priority, request.arrived_s)
        )

    def rows_at(self, priority: int) -> int:
        """Rows that wait with this priority."""
        return sum(
            request.rows for request in self._requests.values() if request.priority == priority
        )

    def add(self, request: Request, due_s: float) -> None:
        """``request`` waits, and is due at ``due_s``."""
        insort(self._order, (due_s, request.id))
        self._requests[request.id] = request
        self._due[request.id] = due_s
        self.rows += request.rows

    def remove(self, request_id: int) -> Request | None:
        """Take a request out; None if it does not wait here."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return None
        entry = (self._due.pop(request_id), request_id)
        del self._order[bisect_left(self._order, entry)]
        self.rows -= request.rows
        return request

    def came(self, rows: int, now: float) -> None:
        """``rows`` were offered, whether they were taken or not."""
        self._rate = self.rate(now) + rows / _RATE_S
        self._rate_s = now

    def rate(self, now: float) -> float:
        """Rows per second that come: those of the past, which count the less the longer ago they came."""
        if math.isinf(self._rate_s):
            return 0.0
        return self._rate * math.exp((self._rate_s - now) / _RATE_S)
