"""A family of variants that is served as one model, and the requests that wait for any of them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable
from typing import NamedTuple

from rootserve.server.core.queue import Request

_RATE_S = 0.25
"""Over how long arrivals are averaged."""

_DOWN, _UP = 0.91, 1.01
"""How fast the tenth part of the deadlines is followed: nine times as many are longer as are shorter."""


class Member(NamedTuple):
    """A variant of a family: the share of images it gets right, 0..1.

    ``tie``: half of the 95 % interval of that share. Nothing is chosen by it: where there is time, the
    variant that measures more accurate costs nothing.
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
    """The requests of one family that wait, by when they are due: their deadline, or what stands for one.

    ``requests`` and ``due`` are in the same order: what is due first comes first.
    """

    def __init__(self, name: str, members: Iterable[Member], patience_s: float) -> None:
        self.name = name
        self.rows = 0
        self.requests: list[Request] = []
        self.due: list[float] = []
        self.fastest: dict[tuple[float, frozenset[str]], str] = {}
        """The variant on which promises to such requests were built last."""
        self._order: list[tuple[float, int]] = []
        self._due_s: dict[int, float] = {}
        self._rows_at: dict[int, int] = {}
        self._patience_s = patience_s
        self._rate = 0.0
        self._rate_s = -math.inf
        self.tight_s = patience_s
        """Nine of ten deadlines are no nearer than this, when the requests come."""
        self.serve(members)

    def serve(self, members: Iterable[Member]) -> None:
        """From now on, ``members`` compute what comes."""
        self.members = tuple(sorted(members, key=lambda member: -member.accuracy))
        self.fastest.clear()

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._due_s

    @property
    def head(self) -> Request:
        """The request that is due first."""
        return self.requests[0]

    def rows_at(self, priority: int) -> int:
        """Rows that wait with this priority."""
        return self._rows_at.get(priority, 0)

    def rows_of(self, caller: str, priority: int) -> int:
        """Rows of ``caller`` that wait with this priority."""
        return sum(
            request.rows
            for request in self.requests
            if request.caller == caller and request.priority == priority
        )

    def add(self, request: Request, due_s: float) -> None:
        """``request`` waits, and is due at ``due_s``."""
        entry = (due_s, request.id)
        at = bisect_left(self._order, entry)
        self._order.insert(at, entry)
        self.requests.insert(at, request)
        self.due.insert(at, due_s)
        self._due_s[request.id] = due_s
        self.rows += request.rows
        self._rows_at[request.priority] = self.rows_at(request.priority) + request.rows

    def remove(self, request_id: int) -> Request | None:
        """Take a request out; None if it does not wait here."""
        due_s = self._due_s.pop(request_id, None)
        if due_s is None:
            return None
        at = bisect_left(self._order, (due_s, request_id))
        request = self.requests.pop(at)
        del self._order[at], self.due[at]
        self.rows -= request.rows
        self._rows_at[request.priority] -= request.rows
        return request

    def take(self, taken: Collection[int]) -> None:
        """Those go to a worker, and wait no more."""
        for request in self.requests:
            if request.id in taken:
                self.rows -= request.rows
                self._rows_at[request.priority] -= request.rows
                del self._due_s[request.id]
        self._order = [entry for entry in self._order if entry[1] not in taken]
        self.requests = [request for request in self.requests if request.id not in taken]
        self.due = [due_s for due_s, _ in self._order]

    def came(self, request: Request, now: float) -> None:
        """``request`` was offered, whether it is taken or not."""
        self._rate = self.rate(now) + request.rows / _RATE_S
        self._rate_s = now
        left_s = min(request.deadline_s - now, self._patience_s)
        if left_s < self.tight_s:
            self.tight_s = max(left_s, self.tight_s * _DOWN)
        else:
            self.tight_s = min(left_s, self.tight_s * _UP)

    def rate(self, now: float) -> float:
        """Rows per second that come: those of the past, which count the less the longer ago they came."""
        if math.isinf(self._rate_s):
            return 0.0
        return self._rate * math.exp((self._rate_s - now) / _RATE_S)
