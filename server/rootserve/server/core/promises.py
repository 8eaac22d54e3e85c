"""What was promised, and whether it can still be kept.

All requests of families whose deadlines were promised are laid out as late as possible: from the last
deadline back, in batches of the fastest variant that each may be computed by, on whichever worker may begin
them latest. What comes out is when each worker has to begin at the latest. As long as each is free by then, all
promises can be kept; the time up to then is there for more accurate variants, for other queues, or for
newcomers. The layout depends on neither the time nor on who is free when, so that nothing which ends
early can spoil it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from rootserve.server.core.latency import FILES, PIXELS
from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Speed, Speeds
from rootserve.server.core.worker import Slot

_EXACT_S = 1e-9
"""Sums of times are no more exact than this."""


class Front(NamedTuple):
    """The batch with which a worker begins in the layout."""

    variant: str
    ids: tuple[int, ...]


class Layout(NamedTuple):
    """``starts_s``: when each machine begins at the latest, in the order of the machines."""

    starts_s: list[float]
    fronts: list[Front | None]


class _Lane:
    """Promised requests that the same variant would compute, by deadline."""

    __slots__ = ("due", "entries", "form", "requests", "single", "variant")

    def __init__(self, variant: str, form: str) -> None:
        self.variant, self.form = variant, form
        self.entries: list[tuple[float, int]] = []
        self.due: list[float] = []
        self.requests: list[Request] = []
        self.single = True
        """Whether each has one row."""

    def add(self, request: Request) -> None:
        entry = (request.deadline_s, request.id)
        at = bisect_left(self.entries, entry)
        self.entries.insert(at, entry)
        self.due.insert(at, request.deadline_s)
        self.requests.insert(at, request)
        self.single = self.single and request.rows == 1

    def remove(self, request: Request) -> None:
        at = bisect_left(self.entries, (request.deadline_s, request.id))
        del self.entries[at], self.due[at], self.requests[at]
        if not self.entries:
            self.single = True

    def without(self, taken: Collection[int]) -> tuple[list[float], list[Request]]:
        if not taken:
            return self.due, self.requests
        requests = [request for request in self.requests if request.id not in taken]
        if len(requests) == len(self.requests):
            return self.due, self.requests
        return [request.deadline_s for request in requests], requests


class Promises:
    """Requests whose deadlines were promised, and that wait."""

    def __init__(self, speeds: Speeds) -> None:
        self._speeds = speeds
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._of: dict[int, tuple[Request, _Lane]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._of

    def add(self, request: Request, variant: str) -> None:
        """The deadline of ``request``, which at worst ``variant`` computes, is promised."""
        key = (variant, FILES if request.files else PIXELS)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(*key)
        lane.add(request)
        self._of[request.id] = request, lane

    def remove(self, request_id: int) -> None:
        """It waits no more, or cannot be kept; also of a request to which nothing was promised."""
        known = self._of.pop(request_id, None)
        if known is not None:
            request, lane = known
            lane.remove(request)
            if not lane.requests:
                del self._lanes[lane.variant, lane.form]

    def drop_broken(self, slots: Sequence[Slot], now: float) -> None:
        """Drop what nobody can keep any more, even who begins at ``now``: it must not cost the others."""
        for lane in tuple(self._lanes.values()):
            able = [speed for _, speed in self._able(lane, slots)]
            while able and lane.requests:
                least_s = min(speed.seconds(lane.requests[0].rows) for speed in able)
                if lane.due[0] >= now + least_s - _EXACT_S:
                    break
                self.remove(lane.requests[0].id)

    def lay_out(
        self, machines: Sequence[Slot], taken: Collection[int] = (), fronts: bool = False
    ) -> Layout:
        """All promises but those to the requests ``taken``, as late as possible.

        A machine that need not begin has infinite as its start, and one with more than it can do minus
        infinite. ``fronts``: also tell with which batches they begin.
        """
        starts = [math.inf] * len(machines)
        first: list[Front | None] = [None] * len(machines)
        lanes = []
        for lane in self._lanes.values():
            due, requests = lane.without(taken)
            if due:
                able = self._able(lane, machines)
                if not able:
                    return Layout([-math.inf] * len(machines), first)
                lanes.append((due, requests, lane, able))
        ends = [len(lane[0]) for lane in lanes]
        while lanes:
            number = 0
            if len(lanes) > 1:
                number = max(range(len(lanes)), key=lambda at: lanes[at][0][ends[at] - 1])
            due, requests, lane, able = lanes[number]
            end = ends[number]
            machine, speed = able[0]
            if len(able) > 1:
                machine, speed = _latest(able, starts, due[end - 1])
            begin, rows = _batch(due, requests, lane.single, end, starts[machine], speed)
            limit_s = due[begin]
            limit_s = min(limit_s, starts[machine])
            starts[machine] = limit_s - speed.seconds(rows)
            if fronts:
                ids = tuple(request.id for request in requests[begin:end])
                first[machine] = Front(lane.variant, ids)
            if begin:
                ends[number] = begin
            else:
                del lanes[number], ends[number]
        return Layout(starts, first)

    def late_s(self, machines: Sequence[Slot], taken: Collection[int] = ()) -> float:
        """By how much the worker that is worst off is free too late; 0 if all promises can be kept."""
        if not self._of:
            return 0.0
        return too_late_s(machines, self.lay_out(machines, taken).starts_s)

    def _able(self, lane: _Lane, machines: Sequence[Slot]) -> list[tuple[int, Speed]]:
        return [
            (number, self._speeds.of(lane.variant, machine.kind, lane.form))
            for number, machine in enumerate(machines)
            if lane.variant in machine.models
        ]


def too_late_s(machines: Sequence[Slot], starts_s: Sequence[float]) -> float:
    """By how much machines are free later than such starts need; machines that are alike may swap them."""
    if len(machines) == 1:
        return _lateness(machines[0].free_s, starts_s[0])
    groups: dict[tuple[str, frozenset[str]], tuple[list[float], list[float]]] = {}
    for machine, start_s in zip(machines, starts_s, strict=True):
        free, starts = groups.setdefault((machine.kind, machine.models), ([], []))
        free.append(machine.free_s)
        starts.append(start_s)
    return max(
        (
            _lateness(free_s, start_s)
            for free, starts in groups.values()
            for free_s, start_s in zip(sorted(free), sorted(starts), strict=True)
        ),
        default=math.inf,
    )


def _lateness(free_s: float, start_s: float) -> float:
    late_s = free_s - start_s
    return late_s if late_s > _EXACT_S else 0.0


def _latest(
    able: Iterable[tuple[int, Speed]], starts: Sequence[float], due_s: float
) -> tuple[int, Speed]:
    """The machine that may begin a batch latest which is due at ``due_s``."""
    return max(able, key=lambda one: min(due_s, starts[one[0]]) - one[1].seconds(one[1].best))


def _batch(
    due: Sequence[float],
    requests: Sequence[Request],
    single: bool,
    end: int,
    start_s: float,
    speed: Speed,
) -> tuple[int, int]:
    """Where the batch begins that ends before ``end``, and how many rows it has.

    One that is due so much earlier than the others that it costs more time than a batch of its own is not
    among them.
    """
    last_s = due[end - 1]
    early_s = (min(last_s, start_s)) - speed.spare_s
    if single:
        begin = max(0, end - speed.best)
        if due[begin] < early_s:
            begin = bisect_left(due, early_s, begin, end - 1)
        return begin, end - begin
    begin = end - 1
    rows = requests[begin].rows
    while begin and due[begin - 1] >= early_s and rows + requests[begin - 1].rows <= speed.best:
        begin -= 1
        rows += requests[begin].rows
    return begin, rows
