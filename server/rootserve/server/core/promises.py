"""What was promised, and whether it can still be kept.

All requests of families whose deadlines were promised are laid out as late as possible: from the last
deadline back, in batches of the fastest variant that each may be computed by, on whichever worker may begin
them latest. What comes out is when each worker has to begin at the latest. As long as each is free by then,
all promises can be kept; the time up to then is there for more accurate variants, for other queues, or for
newcomers. The layout depends on neither the time nor on who is free when, so that nothing which ends
early can spoil it. The last one that can be kept stays the proof of that while new ones, of what is left,
cannot (:mod:`rootserve.server.core.layout`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from rootserve.server.core.layout import EXACT_S, Kept, Layout, Part, swapped, too_late_s
from rootserve.server.core.queue import Request, form_of
from rootserve.server.core.speeds import Speed, Speeds
from rootserve.server.core.worker import Slot

_PARTS = (1, 4, 1024)
_MANY = 64
"""Of more promises than this, the last of these parts is not tried: it would take too long."""


class _Lane:
    """Promised requests that the same variant would compute, by deadline."""

    __slots__ = ("due", "entries", "form", "least_s", "requests", "single", "variant")

    def __init__(self, variant: str, form: str) -> None:
        self.variant, self.form = variant, form
        self.entries: list[tuple[float, int]] = []
        self.due: list[float] = []
        self.requests: list[Request] = []
        self.single = True
        """Whether each has one row."""
        self.least_s = math.inf
        """What the first one takes alone, when it was looked at last."""

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

    def replace(self, due: list[float], requests: list[Request]) -> None:
        self.due, self.requests = due, requests
        self.entries = [(request.deadline_s, request.id) for request in requests]

    def without(self, taken: Collection[int]) -> tuple[list[float], list[Request]]:
        if not taken:
            return self.due, self.requests
        requests = [request for request in self.requests if request.id not in taken]
        if len(requests) == len(self.requests):
            return self.due, self.requests
        return [request.deadline_s for request in requests], requests


class _Due(NamedTuple):
    """What is to be laid out of a lane, and who may compute it: how fast kinds of workers are, and which."""

    due: list[float]
    requests: list[Request]
    lane: _Lane
    able: list[tuple[Speed, list[int]]]


class Promises:
    """Requests whose deadlines were promised, and that wait."""

    def __init__(self, speeds: Speeds) -> None:
        self._speeds = speeds
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._of: dict[int, tuple[Request, _Lane]] = {}
        self._kept = Kept()
        self._tried: tuple[set[int], Sequence[Slot], Layout] | None = None
        """The layout that can be kept once those are taken."""

    def __bool__(self) -> bool:
        return bool(self._of)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._of

    def add(self, request: Request, variant: str) -> None:
        """The deadline of ``request``, which at worst ``variant`` computes, is promised."""
        key = (variant, form_of((request,)))
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

    def take(self, taken: Collection[int]) -> None:
        """Those go to a worker, and wait no more."""
        if self._tried is not None and self._tried[0] == set(taken):
            self._kept.replace(*self._tried[1:])
        self._tried = None
        for lane in {id(one[1]): one[1] for i in taken if (one := self._of.pop(i, None))}.values():
            due, requests = lane.without(taken)
            if requests:
                lane.replace(due, requests)
            else:
                del self._lanes[lane.variant, lane.form]

    def drop_broken(self, slots: Sequence[Slot], now: float) -> None:
        """Drop what nobody can keep any more, even who begins at ``now``: it must not cost the others."""
        for lane in tuple(self._lanes.values()):
            if lane.due[0] >= now + 2.0 * lane.least_s:
                continue
            able = [speed for speed, _ in self._able(lane, slots)]
            while able and lane.requests:
                least_s = min(speed.seconds(lane.requests[0].rows) for speed in able)
                if lane.due[0] >= now + least_s - EXACT_S:
                    lane.least_s = least_s
                    break
                self.remove(lane.requests[0].id)

    def late_s(self, slots: Sequence[Slot], taken: Collection[int] = ()) -> float:
        """By how much the worker that is worst off is free too late; 0 if all promises can be kept.

        ``taken``: requests that are left out. Few large batches are tried first, which is quickly done, and
        smaller ones if they cannot be in time.
        """
        if not self._of:
            return 0.0
        late_s = self._anew_s(slots, taken)
        if late_s:
            left = self._kept.left(slots, self._speeds, self._of, taken)
            if left is not None:
                late_s = min(late_s, too_late_s(slots, left.starts_s))
        return late_s

    def late_with_s(self, slots: Sequence[Slot], request: Request, variant: str) -> float:
        """By how much the worker that is worst off would be free too late with one promise more."""
        self.add(request, variant)
        late_s = self._anew_s(slots, ())
        self.remove(request.id)
        return late_s

    def _anew_s(self, slots: Sequence[Slot], taken: Collection[int]) -> float:
        """What :meth:`late_s` tells, by new layouts; one that can be kept is."""
        late_s = math.inf
        self._tried = None
        for parts in self._parts():
            layout = self._lay_out(slots, taken, parts)
            late_s = min(late_s, too_late_s(slots, layout.starts_s))
            if not late_s:
                if taken:
                    self._tried = set(taken), slots, layout
                else:
                    self._kept.replace(slots, layout)
                break
        return late_s

    def lacking_s(self, slots: Sequence[Slot], request: Request, variant: str) -> float:
        """By how much ``request`` is certainly late: what is due before it takes the time that there is.

        However well its batches were filled. 0 where only a layout can tell.
        """
        due_s = request.deadline_s
        time_s = sum(max(0.0, due_s - slot.free_s) for slot in slots if variant in slot.models)
        needed_s = request.rows * min(
            (
                self._speeds.of(variant, slot.kind).safe_row_s
                for slot in slots
                if variant in slot.models
            ),
            default=math.inf,
        )
        for lane in self._lanes.values():
            if lane.variant != variant:
                continue  # who computes it may not be who computes the request
            before = bisect_left(lane.due, due_s)
            rows = before
            if not lane.single:
                rows = sum(other.rows for other in lane.requests[:before])
            needed_s += rows * min(
                self._speeds.of(variant, slot.kind, lane.form).row_s for slot in slots
            )
        late_s = needed_s - time_s
        return late_s / len(slots) if slots and late_s > EXACT_S else max(0.0, late_s)

    def last_s(self) -> float:
        """The last deadline that was promised; minus infinite if there is none."""
        return max((lane.due[-1] for lane in self._lanes.values()), default=-math.inf)

    def end_s(self, slots: Sequence[Slot]) -> float:
        """When all that was promised is done at the latest, if nothing else is computed."""
        work_s = 0.0
        for lane in self._lanes.values():
            able = [speed for speed, _ in self._able(lane, slots)]
            if not able:
                return math.inf
            rows = sum(request.rows for request in lane.requests)
            work_s += max(
                math.ceil(rows / speed.safe) * speed.seconds(speed.safe) for speed in able
            )
        if not slots:
            return math.inf
        return max(slot.free_s for slot in slots) + work_s / len(slots)

    def has_room(self, slots: Sequence[Slot], request: Request, variant: str) -> bool:
        """Whether a promise to ``request`` can be kept for certain, from what was laid out before.

        In a batch of its own, before all others; there it is kept for it.
        """
        form = form_of((request,))
        return self._kept.has_room(slots, Part(variant, form, (request,)), self._speeds)

    def first(self, slots: Sequence[Slot]) -> dict[str, Part] | None:
        """With what workers begin, by their names, if all promises can be kept; else None."""
        if self.late_s(slots):
            return None
        left = self._kept.left(slots, self._speeds, self._of, ())
        if left is None:
            return None
        return {
            slots[number].worker: left.parts[other][-1]
            for number, other in swapped(slots, left.starts_s)
            if left.parts[other]
        }

    def _parts(self) -> Sequence[int]:
        return _PARTS if len(self._of) <= _MANY else _PARTS[:-1]

    def _lay_out(self, slots: Sequence[Slot], taken: Collection[int], parts: int) -> Layout:
        """All promises but those to the requests ``taken``, as late as possible.

        Batches have at least one of so many ``parts`` of the rows they had best have, if there are as many.
        """
        starts = [math.inf] * len(slots)
        batches: list[list[Part]] = [[] for _ in slots]
        lanes: list[_Due] = []
        for lane in self._lanes.values():
            due, requests = lane.without(taken)
            if due:
                able = self._able(lane, slots)
                if not able:
                    return Layout([-math.inf] * len(slots), batches)
                lanes.append(_Due(due, requests, lane, able))
        ends = [len(one[0]) for one in lanes]
        while lanes:
            number = 0
            for other in range(1, len(lanes)):
                if lanes[other][0][ends[other] - 1] > lanes[number][0][ends[number] - 1]:
                    number = other
            due, requests, lane, able = lanes[number]
            end = ends[number]
            speed, alike = able[0]
            if len(able) > 1:
                speed, alike = _latest(able, starts, due[end - 1])
            machine = alike[0] if len(alike) == 1 else max(alike, key=starts.__getitem__)
            start_s = starts[machine]
            begin, rows = _batch(lanes[number], end, start_s, speed, parts)
            limit_s = due[begin]
            starts[machine] = (min(limit_s, start_s)) - speed.seconds(rows)
            batches[machine].append(Part(lane.variant, lane.form, requests[begin:end]))
            if begin:
                ends[number] = begin
            else:
                del lanes[number], ends[number]
        return Layout(starts, batches)

    def _able(self, lane: _Lane, slots: Sequence[Slot]) -> list[tuple[Speed, list[int]]]:
        """How fast the kinds of workers are that may compute a lane, and which ones they are."""
        able: dict[str, tuple[Speed, list[int]]] = {}
        for number, slot in enumerate(slots):
            if lane.variant in slot.models:
                if slot.kind not in able:
                    able[slot.kind] = self._speeds.of(lane.variant, slot.kind, lane.form), []
                able[slot.kind][1].append(number)
        return list(able.values())


def _latest(
    able: Iterable[tuple[Speed, list[int]]], starts: Sequence[float], due_s: float
) -> tuple[Speed, list[int]]:
    """The kind of which a worker may begin a batch latest that is due at ``due_s``."""

    def begin_s(one: tuple[Speed, list[int]]) -> float:
        speed, alike = one
        return min(due_s, max(starts[number] for number in alike)) - speed.seconds(speed.safe)

    return max(able, key=begin_s)


def _batch(part: _Due, end: int, start_s: float, speed: Speed, parts: int) -> tuple[int, int]:
    """Where the batch begins that ends before ``end``, and how many rows it has.

    One that is due so much earlier than the others that it costs more time than a batch of its own is not
    among them, if there is a part of the rows without it.
    """
    due, requests, lane = part.due, part.requests, part.lane
    last_s = due[end - 1]
    early_s = (min(last_s, start_s)) - speed.spare_s
    best = speed.safe
    enough = max(1, best // parts)
    if lane.single:
        begin = end - best
        begin = max(begin, 0)
        if due[begin] < early_s and end - begin > enough:
            begin = bisect_left(due, early_s, begin, end - enough)
        return begin, end - begin
    begin = end - 1
    rows = requests[begin].rows
    while begin and rows + requests[begin - 1].rows <= best:
        if due[begin - 1] < early_s and rows >= enough:
            break
        begin -= 1
        rows += requests[begin].rows
    return begin, rows
