"""What waits for one model: requests by priority, and then in order of arrival.

A priority is worth a head start of ``age_s``: a request goes before those of the next higher priority that
came so much later, so that none waits for ever behind those of higher ones. Up to then, priorities are
strict.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from rootserve.server.core.latency import FILES, PIXELS

# Named tuples: there is one of each for every request, and a frozen dataclass takes four times as
# long to make.


class Request(NamedTuple):
    """What the scheduler knows of a request. ``deadline_s`` is on the clock of ``arrived_s``."""

    id: int
    model: str
    rows: int
    arrived_s: float
    deadline_s: float = math.inf
    priority: int = 1
    """1 is the highest."""
    attempts: int = 0
    """How many workers died while they computed it."""
    floor: float = 0.0
    """Of a family: the least accuracy, 0..1, of what may compute it."""
    allowed: frozenset[str] = frozenset()
    """Of a family: the variants that may compute it; empty means all."""
    caller: str = ""
    """Whose share of a family it counts against."""
    files: bool = False
    """Whether its rows come as picture files, which take a worker longer than pixels."""


# Loops: once compiled they take a tenth of what ``any`` or ``sum`` of a ``map`` takes.


def form_of(requests: Sequence[Request]) -> str:
    """The form in which a batch of ``requests`` comes: as files, if any does."""
    for request in requests:
        if request.files:
            return FILES
    return PIXELS


def rows_of(requests: Iterable[Request]) -> int:
    """Rows of all of them."""
    rows = 0
    for request in requests:
        rows += request.rows
    return rows


def soonest_s(requests: Iterable[Request]) -> float:
    """The first of their deadlines."""
    due_s = math.inf
    for request in requests:
        due_s = min(due_s, request.deadline_s)
    return due_s


def rank(request: Request, age_s: float) -> tuple[float, int, float]:
    """What is smaller is to be computed first, if a priority is worth a head start of ``age_s``."""
    if math.isinf(age_s):
        return 0.0, request.priority, request.arrived_s
    return request.arrived_s + request.priority * age_s, request.priority, 0.0


@dataclass(slots=True)
class _Level:
    """Requests of one model and priority that wait, oldest first."""

    requests: OrderedDict[int, Request] = field(default_factory=OrderedDict)
    rows: int = 0


@dataclass(slots=True)
class Queue:
    """Requests of one model that wait, by priority. Levels at which nothing waits are left out."""

    age_s: float = math.inf
    levels: dict[int, _Level] = field(default_factory=dict)
    rows: int = 0
    _head: Request | None = None
    """Once it was asked for, until something comes or goes."""

    def __iter__(self) -> Iterator[Request]:
        """All requests in the order in which they are to be computed."""
        levels = [level.requests.values() for level in self.levels.values()]
        return iter(levels[0]) if len(levels) == 1 else heapq.merge(*levels, key=self.rank)

    def rank(self, request: Request) -> tuple[float, int, float]:
        """What is smaller is to be computed first; also among the requests of several queues."""
        return rank(request, self.age_s)

    def __len__(self) -> int:
        return sum(len(level.requests) for level in self.levels.values())

    def __bool__(self) -> bool:
        return bool(self.levels)

    def __contains__(self, request_id: int) -> bool:
        return any(request_id in level.requests for level in self.levels.values())

    @property
    def head(self) -> Request:
        """The request that is to be computed next."""
        if self._head is None:
            self._head = min(self._heads(), key=self.rank)
        return self._head

    @property
    def oldest_s(self) -> float:
        """When the request came that has waited longest."""
        return min(head.arrived_s for head in self._heads())

    def _heads(self) -> list[Request]:
        """The first of each priority."""
        return [next(iter(level.requests.values())) for level in self.levels.values()]

    def rows_at(self, priority: int) -> int:
        """Rows that wait with this priority."""
        level = self.levels.get(priority)
        return level.rows if level else 0

    def append(self, request: Request) -> None:
        """Put ``request`` behind those of its priority."""
        level = self.levels.get(request.priority)
        if level is None:
            level = self.levels[request.priority] = _Level()
        self._head = None
        level.requests[request.id] = request
        level.rows += request.rows
        self.rows += request.rows

    def put_back(self, request: Request) -> None:
        """Put ``request``, which was taken out, before those of its priority that came later."""
        self.append(request)
        requests = self.levels[request.priority].requests
        came = (request.arrived_s, request.id)
        # Those that came before it are few: what another worker had that died.
        earlier = takewhile(lambda other: (other.arrived_s, other.id) < came, requests.values())
        first = [other.id for other in earlier]
        for request_id in (request.id, *reversed(first)):
            requests.move_to_end(request_id, last=False)

    def remove(self, request_id: int) -> Request | None:
        """Take a request out; None if it does not wait here."""
        for priority, level in self.levels.items():
            request = level.requests.pop(request_id, None)
            if request is not None:
                self._head = None
                level.rows -= request.rows
                self.rows -= request.rows
                if not level.requests:
                    del self.levels[priority]
                return request
        return None
