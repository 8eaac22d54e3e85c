"""What was promised, and whether it can still be kept.

All requests of families whose deadlines were promised are laid out as late as possible: from the last
deadline back, in batches of the fastest variant that each may be computed by, on whichever worker may begin
them latest. What comes out is what each worker computes, and by when each batch has to be done. As long as
those ends are in time, all promises can be kept; what time is left before them is there for more accurate
variants, for other queues, or for newcomers. The layout depends on neither the time nor on who is free when,
so that nothing which ends early can spoil it. The last one that can be kept stays the proof of that while new
ones, of what is left, cannot (:mod:`rootserve.server.core.layout`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from rootserve.server.core.layout import (
    EXACT_S,
    LIKELY,
    SURE,
    Kept,
    Layout,
    Part,
    Step,
    swapped,
    too_late_s,
)
from rootserve.server.core.queue import Request, form_of
from rootserve.server.core.speeds import Cost, Speed, Speeds
from rootserve.server.core.worker import Slot

_NEVER = Step(-math.inf, Cost(0.0, 0.0, 0.0), Part("", "", (Request(0, "", 0, 0.0),)))
"""Stands for what nobody can compute."""

_PARTS = (1, 4, 1024)
_MANY = 64
"""Of more promises than this, the last of these parts is not tried: it would take too long."""


class _Lane:
    """Promised requests that the same variant would compute, by deadline."""

    __slots__ = ("_sums", "due", "form", "least_s", "order", "requests", "variant")

    def __init__(self, variant: str, form: str) -> None:
        self.variant, self.form = variant, form
        self.order: list[tuple[float, int]] = []
        self.due: list[float] = []
        self.requests: list[Request] = []
        self.least_s = math.inf
        """What the first one takes alone, when it was looked at last."""
        self._sums: list[int] | None = None

    def add(self, request: Request) -> None:
        entry = (request.deadline_s, request.id)
        at = bisect_left(self.order, entry)
        self.order.insert(at, entry)
        self.due.insert(at, request.deadline_s)
        self.requests.insert(at, request)
        self._sums = None

    def remove(self, request: Request) -> None:
        at = bisect_left(self.order, (request.deadline_s, request.id))
        del self.order[at], self.due[at], self.requests[at]
        self._sums = None

    def take(self, taken: Collection[int], count: int) -> bool:
        """Those are no longer in it, of which it has so many; whether it is empty then."""
        rest = self.without(taken, count)
        self.order, self.due, self.requests = rest.order, rest.due, rest.requests
        self._sums = rest.sums()
        return not self.requests

    def sums(self) -> list[int]:
        """Rows up to each request and up to the end; only their differences count."""
        if self._sums is None:
            rows = [request.rows for request in self.requests]
            self._sums = list(accumulate(rows, initial=0))
        return self._sums

    def rows_before(self, end: int) -> int:
        """Rows of the first so many requests."""
        sums = self.sums()
        return sums[end] - sums[0]

    def without(self, taken: Collection[int], count: int) -> _Lane:
        """The same without those ``taken``, of which it has so many, to be laid out."""
        if not count:
            return self
        rest = _Lane(self.variant, self.form)
        first, requests = 0, self.requests
        while first < len(requests) and requests[first].id in taken:
            first += 1
        if first == count:  # those due first, as mostly
            rest.order, rest.due = self.order[first:], self.due[first:]
            rest.requests = requests[first:]
            rest._sums = self.sums()[first:]
        else:
            rest.requests = [request for request in requests[first:] if request.id not in taken]
            rest.due = [request.deadline_s for request in rest.requests]
            rest.order = [(request.deadline_s, request.id) for request in rest.requests]
        return rest


class _Due(NamedTuple):
    """A lane that is laid out, and who may compute it: how fast kinds of workers are, and which."""

    lane: _Lane
    able: list[tuple[Speed, list[int]]]


class Rest:
    """What was promised to others than those ``taken``, and whether it can be kept once slots are free.

    Few large batches are tried first, which is quickly done, and smaller ones if they cannot be in time.
    """

    def __init__(
        self,
        promises: Promises,
        slots: Sequence[Slot],
        taken: Collection[int] = (),
        *,
        anew: bool = False,
    ) -> None:
        """``anew``: the layout that is kept does not count, which has not all of them."""
        self.slots, self.taken = slots, frozenset(taken)
        self._anew = anew
        self.kept: Layout | None = None
        """The layout that can be kept, if one was found last."""
        self._promises = promises
        self._lanes = promises.due(slots, self.taken)
        self._layouts: list[Layout] = []

    def late_s(
        self, slots: Sequence[Slot], caution: float = LIKELY, since_s: float = -math.inf
    ) -> float:
        """By how much the worst is late if these are free then; 0 if all promises can be kept.

        With so much caution; of all whose batches have something that is due at ``since_s`` or later.
        """
        self.kept = None
        if not self._lanes:
            self.kept = [[] for _ in slots]
            return 0.0
        late_s = math.inf
        for layout in self._tried():
            late_s = min(late_s, too_late_s(slots, layout, caution, since_s))
            if not late_s:
                self.kept = layout
                break
        return late_s

    def _tried(self) -> Iterable[Layout]:
        yield from self._layouts
        parts = _PARTS if len(self._promises) <= _MANY else _PARTS[:-1]
        for each in parts[len(self._layouts) :]:
            layout = _lay_out(self._lanes, len(self.slots), each)
            self._layouts.append(layout)
            yield layout
        left = None if self._anew else self._promises.left(self.slots, self.taken)
        if left is not None:
            yield left


class Promises:
    """Requests whose deadlines were promised, and that wait."""

    def __init__(self, speeds: Speeds) -> None:
        self._speeds = speeds
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._of: dict[int, tuple[Request, _Lane]] = {}
        self._kept = Kept()
        self.changes = 0
        """Grows whenever something is promised, or waits no more."""

    def __len__(self) -> int:
        return len(self._of)

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
        self.changes += 1

    def remove(self, request_id: int) -> None:
        """It waits no more, or cannot be kept; also of a request to which nothing was promised."""
        known = self._of.pop(request_id, None)
        if known is not None:
            self.changes += 1
            request, lane = known
            lane.remove(request)
            if not lane.requests:
                del self._lanes[lane.variant, lane.form]

    def forget(self, request_ids: Iterable[int]) -> None:
        """Nothing was promised to those, and no layout shows that what was promised can be kept."""
        for request_id in request_ids:
            self.remove(request_id)
        self._kept = Kept()

    def take(self, taken: Collection[int], rest: Rest | None) -> None:
        """Those go to a worker, and wait no more; ``rest`` showed that the others can be kept."""
        if rest is not None and rest.kept is not None:
            self._kept.replace(rest.slots, rest.kept)
        counts = Counter(id(self._of[each][1]) for each in taken if each in self._of)
        for lane in tuple(self._lanes.values()):
            count = counts[id(lane)]
            if count and lane.take(taken, count):
                del self._lanes[lane.variant, lane.form]
        for request_id in taken:
            self._of.pop(request_id, None)
        self.changes += 1

    def drop_broken(self, slots: Sequence[Slot], now: float) -> None:
        """Drop what nobody can keep any more, even who begins at ``now``: it must not cost the others."""
        for lane in tuple(self._lanes.values()):
            if lane.due[0] >= now + 2.0 * lane.least_s:
                continue
            able = [speed for speed, _ in _able(self._speeds, lane, slots)]
            while able and lane.requests:
                least_s = min(speed.cost(lane.requests[0].rows).mean_s for speed in able)
                if lane.due[0] >= now + least_s - EXACT_S:
                    lane.least_s = least_s
                    break
                self.remove(lane.requests[0].id)

    def due(self, slots: Sequence[Slot], taken: Collection[int]) -> list[_Due]:
        """What is to be laid out but for those ``taken``."""
        found = []
        counts = Counter(id(self._of[each][1]) for each in taken if each in self._of)
        for lane in self._lanes.values():
            rest = lane.without(taken, counts[id(lane)])
            if rest.requests:
                found.append(_Due(rest, _able(self._speeds, lane, slots)))
        return found

    def left(self, slots: Sequence[Slot], taken: Collection[int]) -> Layout | None:
        """What is left of the layout that could be kept last; None if it has not all of them."""
        return self._kept.left(slots, self._speeds, self._of, taken)

    def late_s(self, slots: Sequence[Slot], caution: float = LIKELY) -> float:
        """By how much the worst promise is late; 0 if all can be kept."""
        return Rest(self, slots).late_s(slots, caution) if self._of else 0.0

    def late_with_s(
        self, slots: Sequence[Slot], request: Request, variant: str, caution: float
    ) -> float:
        """By how much the worst promise would be late with one more; 0 if all could be kept.

        What cannot be kept anyway does not count, as long as it is due before that one.
        """
        before = self.changes
        self.add(request, variant)
        rest = Rest(self, slots, anew=True)
        late_s = later_s = rest.late_s(slots, caution)
        if rest.kept is not None:
            self._kept.replace(slots, rest.kept)
        else:
            later_s = rest.late_s(slots, caution, request.deadline_s)
        self.remove(request.id)
        self.changes = before
        return late_s if later_s or not late_s or not self.late_s(slots, caution) else 0.0

    def fits(self, slots: Sequence[Slot], request: Request, variant: str, caution: float) -> bool:
        """Whether all promises could be kept with one more."""
        before = self.changes
        self.add(request, variant)
        late_s = Rest(self, slots, anew=True).late_s(slots, caution)
        self.remove(request.id)
        self.changes = before
        return not late_s

    def lacking_s(self, slots: Sequence[Slot], request: Request, variant: str) -> float:
        """By how much ``request`` is certainly late: what is due before it takes the time that there is.

        However well its batches were filled. 0 where only a layout can tell.
        """
        due_s = request.deadline_s
        time_s = sum(max(0.0, due_s - slot.free_s) for slot in slots if variant in slot.models)
        rows_s = [
            self._speeds.of(variant, slot.kind).row_s for slot in slots if variant in slot.models
        ]
        needed_s = request.rows * min(rows_s, default=math.inf)
        for lane in self._lanes.values():
            if lane.variant != variant:
                continue  # who computes it may not be who computes the request
            rows = lane.rows_before(bisect_left(lane.due, due_s))
            needed_s += rows * min(
                self._speeds.of(variant, slot.kind, lane.form).row_s for slot in slots
            )
        late_s = needed_s - time_s
        return late_s / len(slots) if slots and late_s > EXACT_S else max(0.0, late_s)

    def last_s(self) -> float:
        """The last deadline that was promised; minus infinite if there is none."""
        return max((lane.due[-1] for lane in self._lanes.values()), default=-math.inf)

    def end_s(self, slots: Sequence[Slot]) -> float:
        """When all that was promised is done, if nothing else is computed, with all caution."""
        if not slots:
            return math.inf
        work_s = 0.0
        for lane in self._lanes.values():
            able = [speed for speed, _ in _able(self._speeds, lane, slots)]
            if not able:
                return math.inf
            rows = lane.rows_before(len(lane.due))
            work_s += max(
                math.ceil(rows / speed.best) * speed.cost(speed.best).within_s(SURE)
                for speed in able
            )
        free_s = max(slot.within_s(SURE) for slot in slots)
        return free_s + work_s / len(slots)

    def has_room(self, slots: Sequence[Slot], request: Request, variant: str) -> bool:
        """Whether a promise to ``request`` can be kept for certain, from what was laid out before.

        In a batch of its own, before all others; there it is kept for it.
        """
        form = form_of((request,))
        return self._kept.has_room(slots, Part(variant, form, (request,)), self._speeds)

    def first(self, slots: Sequence[Slot]) -> dict[str, Part] | None:
        """With what workers begin, by their names, if all promises can be kept; else None."""
        rest = Rest(self, slots)
        rest.late_s(slots)
        if rest.kept is None:
            return None
        return {
            slots[number].worker: rest.kept[other][-1].part
            for number, other in swapped(slots, rest.kept)
            if rest.kept[other]
        }


def _able(speeds: Speeds, lane: _Lane, slots: Sequence[Slot]) -> list[tuple[Speed, list[int]]]:
    """How fast the kinds of workers are that may compute a lane, and which ones they are."""
    able: dict[str, tuple[Speed, list[int]]] = {}
    for number, slot in enumerate(slots):
        if lane.variant in slot.models:
            if slot.kind not in able:
                able[slot.kind] = speeds.of(lane.variant, slot.kind, lane.form), []
            able[slot.kind][1].append(number)
    return list(able.values())


def _lay_out(lanes: Sequence[_Due], workers: int, parts: int) -> Layout:
    """All that is due, as late as possible.

    Batches have at least one of so many ``parts`` of the rows they had best have, if there are as many.
    """
    starts = [math.inf] * workers
    layout: Layout = [[] for _ in range(workers)]
    ends = [len(each.lane.due) for each in lanes]
    left = [number for number, end in enumerate(ends) if end]
    while left:
        number = left[0]
        if len(left) > 1:
            number = max(left, key=lambda one: lanes[one].lane.due[ends[one] - 1])
        lane, able = lanes[number]
        if not able:
            return [[_NEVER] for _ in range(workers)]
        end = ends[number]
        speed, alike = able[0]
        if len(able) > 1:
            speed, alike = _latest(able, starts, lane.due[end - 1])
        machine = alike[0]
        for other in alike:
            if starts[other] > starts[machine]:
                machine = other
        start_s = starts[machine]
        begin, rows = _batch(lane, end, start_s, speed, parts)
        due_s, cost = lane.due[begin], speed.cost(rows)
        starts[machine] = min(start_s, due_s) - cost[0]
        part = Part(lane.variant, lane.form, lane.requests[begin:end])
        layout[machine].append(Step(due_s, cost, part))
        ends[number] = begin
        if not begin:
            left.remove(number)
    return layout


def _latest(
    able: Iterable[tuple[Speed, list[int]]], starts: Sequence[float], due_s: float
) -> tuple[Speed, list[int]]:
    """The kind of which a worker may begin a batch latest that is due at ``due_s``."""

    def begin_s(one: tuple[Speed, list[int]]) -> float:
        speed, alike = one
        latest_s = max(starts[number] for number in alike)
        return min(due_s, latest_s) - speed.cost(speed.best).mean_s

    return max(able, key=begin_s)


def _batch(lane: _Lane, end: int, start_s: float, speed: Speed, parts: int) -> tuple[int, int]:
    """Where the batch begins that ends before ``end``, and how many rows it has.

    One that is due so much earlier than the others that it costs more time than a batch of its own is not
    among them, if there is a part of the rows without it.
    """
    due, sums, best = lane.due, lane.sums(), speed.best
    last_s, all_rows = due[end - 1], sums[end]
    begin = bisect_left(sums, all_rows - best, 0, end - 1)
    early_s = min(start_s, last_s) - speed.spare_s
    if due[begin] < early_s:
        enough = max(1, best // parts)
        latest = bisect_left(sums, all_rows - enough + 1, begin, end) - 1
        later = bisect_left(due, early_s, begin, end - 1)
        begin = max(begin, min(later, latest))
    return begin, all_rows - sums[begin]
