"""A family of variants that is served as one model, and the requests that wait for any of them."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Final, NamedTuple

from rootserve.server.core.demand import Demand
from rootserve.server.core.queue import Request

KNOWN: Final = 4096
"""So many different floors and sets of variants are remembered."""


class Member(NamedTuple):
    """A variant of a family: the share of images it gets right, 0..1."""

    variant: str
    accuracy: float


def may_compute(request: Request, member: Member) -> bool:
    """Whether ``member`` is accurate enough for ``request``, and one of those it may be computed by."""
    return request.floor <= member.accuracy and (
        not request.allowed or member.variant in request.allowed
    )


class Family:
    """The requests of one family that wait, by when they are due: their deadline, or what stands for one.

    ``requests``, ``due`` and ``held_s``, what their callers hold for them of a worker's time, are in the same
    order: what is due first comes first.
    """

    def __init__(self, name: str, members: Iterable[Member], patience_s: float) -> None:
        self.name = name
        self.rows = 0
        self.requests: list[Request] = []
        self.due: list[float] = []
        self.held_s: list[float] = []
        self.fastest: dict[tuple[float, frozenset[str], str], str] = {}
        """The variant on which promises to such requests were built last."""
        self._able: dict[tuple[float, frozenset[str]], tuple[str, ...]] = {}
        self._due_s: dict[int, float] = {}
        self._rows_at: dict[int, int] = {}
        self.demand = Demand(patience_s)
        self.serve(members)

    def serve(self, members: Iterable[Member]) -> None:
        """From now on, ``members`` compute what comes."""
        self.members = tuple(sorted(members, key=lambda member: -member.accuracy))
        self.variants = tuple(member.variant for member in self.members)
        self.fastest.clear()
        self._able.clear()

    def able(self, request: Request) -> tuple[str, ...]:
        """The variants that may compute ``request``, most accurate first."""
        key = (request.floor, request.allowed)
        known = self._able.get(key)
        if known is None:
            if len(self._able) > KNOWN:
                self._able.clear()  # floors are the callers'
            members = (each for each in self.members if may_compute(request, each))
            known = self._able[key] = tuple(each.variant for each in members)
        return known

    def __len__(self) -> int:
        return len(self.requests)

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

    def _place(self, due_s: float, request_id: int) -> int:
        """Where a request is or would be: by when it is due, and of those due then by number."""
        due = self.due
        at = bisect_left(due, due_s)
        while at < len(due) and due[at] == due_s and self.requests[at].id < request_id:
            at += 1
        return at

    def add(self, request: Request, due_s: float, held_s: float = 0.0) -> None:
        """``request`` waits, and is due at ``due_s``; its caller holds so much of a worker's time for it."""
        at = self._place(due_s, request.id)
        self.requests.insert(at, request)
        self.due.insert(at, due_s)
        self.held_s.insert(at, held_s)
        self._due_s[request.id] = due_s
        self.rows += request.rows
        self._rows_at[request.priority] = self.rows_at(request.priority) + request.rows

    def remove(self, request_id: int) -> tuple[Request, float] | None:
        """Take a request out, and say what was held for it; None if it does not wait here."""
        due_s = self._due_s.pop(request_id, None)
        if due_s is None:
            return None
        at = self._place(due_s, request_id)
        request = self.requests.pop(at)
        del self.due[at]
        self.rows -= request.rows
        self._rows_at[request.priority] -= request.rows
        return request, self.held_s.pop(at)

    def take(self, taken: Sequence[Request]) -> tuple[Sequence[Request], Sequence[float]]:
        """Those go to a worker, and wait no more; gives them as they are due, and what was held for each."""
        due_s, rows_at = self._due_s, self._rows_at
        last_s = -math.inf
        for request in taken:
            last_s = max(last_s, due_s.pop(request.id))
        for priority in tuple(rows_at):
            rows = sum([one.rows for one in taken if one.priority == priority])
            rows_at[priority] -= rows
            self.rows -= rows
        count = len(taken)
        if tuple(self.requests[:count]) == tuple(taken):  # as mostly
            held = self.held_s[:count]
            del self.requests[:count], self.due[:count], self.held_s[:count]
            return taken, held
        end = bisect_right(self.due, last_s)
        early, held = self.requests[:end], self.held_s[:end]
        left = [request.id in due_s for request in early]
        gone = [not stays for stays in left]
        self.requests[:end] = compress(early, left)
        self.due[:end] = compress(self.due[:end], left)
        self.held_s[:end] = compress(held, left)
        return list(compress(early, gone)), list(compress(held, gone))
