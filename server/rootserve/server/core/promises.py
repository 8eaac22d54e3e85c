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
from collections.abc import Iterable, Sequence
from typing import Final

from rootserve.server.core.lane import Key, Lane
from rootserve.server.core.layout import (
    EXACT_S,
    LIKELY,
    SURE,
    Kept,
    Layout,
    Step,
    swapped,
    too_late_s,
)
from rootserve.server.core.packing import Able, Due, Packing
from rootserve.server.core.queue import Request, form_of
from rootserve.server.core.speeds import Speed, Speeds
from rootserve.server.core.worker import Slot

_PARTS = (1, 4, 1024)
_MANY: Final = 64
"""Of more promises than this, the last of these parts is not tried: it would take too long."""


class Rest:
    """What was promised to others than those ``taken``, and whether it can be kept once slots are free.

    Few large batches are tried first, which is quickly done, and smaller ones if they cannot be in time.
    """

    def __init__(
        self,
        promises: Promises,
        slots: Sequence[Slot],
        taken: Sequence[Request] = (),
        newcomer: tuple[Request, str] | None = None,
    ) -> None:
        """``newcomer``: as if something had been promised to that one as well, with this variant at worst."""
        self.slots, self.taken = slots, taken
        self.kept: Layout | None = None
        """The layout that can be kept, if one was found last."""
        self._promises = promises
        self._newcomer = newcomer
        self._few = len(promises) + (newcomer is not None) <= _MANY
        self.lanes = promises.due(slots)
        self.last_s = _last_s(taken)
        """The last deadline of those ``taken``."""
        if taken:
            self.lanes = _without(self.lanes, taken, self.last_s)
        elif newcomer:
            self.lanes = promises.with_one(self.lanes, slots, newcomer[0], newcomer[1])
        self._layouts: list[Layout] = []
        self._left: Layout | None = None
        self._has_left = newcomer is not None  # which has not all of them

    def late_s(
        self, slots: Sequence[Slot], caution: float = LIKELY, since_s: float = -math.inf
    ) -> float:
        """By how much the worst is late if these are free then; 0 if all promises can be kept.

        With so much caution; of all whose batches have something that is due at ``since_s`` or later.
        """
        self.kept = None
        if not self.lanes:
            self.kept = Layout([], len(slots))
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
        parts = _PARTS if self._few else _PARTS[:-1]
        for each in parts[len(self._layouts) :]:
            layout = self._laid_out(self._promises.packings[each])
            self._layouts.append(layout)
            yield layout
        if not self._has_left:
            self._left = self._promises.left(self.slots, self.taken)
            self._has_left = True
        if self._left is not None:
            yield self._left

    def _laid_out(self, packing: Packing) -> Layout:
        workers = len(self.slots)
        if self._newcomer is not None:
            return packing.layout_with_one(self.lanes, workers, self._newcomer[0])
        if self.taken:
            return packing.layout_without(self.lanes, workers, self.last_s)
        return packing.layout(self.lanes, workers)


class Promises:
    """Requests whose deadlines were promised, and that wait."""

    def __init__(self, speeds: Speeds) -> None:
        self._speeds = speeds
        self._lanes: dict[Key, Lane] = {}
        self._tried: tuple[Request, Lane] | None = None
        """Who may be promised something next, and the lane with that one."""
        self._able: dict[Key, Able] = {}
        """Who may compute a lane: as it was for the slots that follow, when so much was known."""
        self._able_slots: Sequence[Slot] = ()
        self._able_version = -1
        self._kept = Kept()
        self.packings = {parts: Packing(parts) for parts in _PARTS}
        """Of all that was promised, as it is laid out in so many parts of full batches."""
        self.changes = 0
        """Grows whenever something is promised, or waits no more."""

    def __len__(self) -> int:
        return sum([len(lane) for lane in self._lanes.values()])

    def __contains__(self, request: Request) -> bool:
        return request.deadline_s < math.inf and any(
            lane.has(request) for lane in self._lanes.values()
        )

    def add(self, request: Request, variant: str) -> None:
        """The deadline of ``request``, which at worst ``variant`` computes, is promised."""
        key = (variant, form_of((request,)))
        lane, tried = self._lanes.get(key), self._tried
        if tried is not None and tried[0] is request and tried[1].key == key:
            lane = tried[1]
        else:
            lane = (Lane(*key) if lane is None else lane).added(request)
        self._lanes[key] = lane
        self._tried = None
        self.changes += 1
        for packing in self.packings.values():
            packing.added(request)

    def remove(self, request: Request) -> None:
        """It waits no more, or cannot be kept; also of a request to which nothing was promised."""
        for key, lane in self._lanes.items():
            if lane.has(request):
                self._changed(request.deadline_s)
                if len(lane) > 1:
                    self._lanes[key] = lane.without_one(request)
                else:
                    del self._lanes[key]
                return

    def forget(self, requests: Iterable[Request]) -> None:
        """Nothing was promised to those, and no layout shows that what was promised can be kept."""
        for request in requests:
            self.remove(request)
        self._kept = Kept()

    def take(self, requests: Sequence[Request], rest: Rest | None) -> None:
        """Those go to a worker, and wait no more; ``rest`` showed that the others can be kept."""
        if rest is not None:
            if rest.kept is not None:
                self._kept.replace(rest.slots, rest.kept)
            left, last_s = rest.lanes, rest.last_s
        else:
            last_s = _last_s(requests)
            left = _without(self.due(()), requests, last_s)
        self._lanes = {each.lane.key: each.lane for each in left}
        self._changed(last_s)

    def _changed(self, due_s: float) -> None:
        self._tried = None
        self.changes += 1
        for packing in self.packings.values():
            packing.changed(due_s)

    def drop_broken(self, slots: Sequence[Slot], now: float) -> None:
        """Drop what nobody can keep any more, even who begins at ``now``: it must not cost the others."""
        for each in tuple(self._lanes.values()):
            lane: Lane | None = each
            if each.first.deadline_s >= now + 2.0 * each.least_s:
                continue
            able = [speed for speed, _ in self._able_of(each, slots)]
            while able and lane is not None:
                least_s = min(speed.cost(lane.first.rows).mean_s for speed in able)
                if lane.first.deadline_s >= now + least_s - EXACT_S:
                    lane.least_s = least_s
                    break
                self.remove(lane.first)
                lane = self._lanes.get(lane.key)

    def due(self, slots: Sequence[Slot]) -> list[Due]:
        """What is to be laid out."""
        return [Due(lane, self._able_of(lane, slots)) for lane in self._lanes.values()]

    def with_one(
        self, due: Sequence[Due], slots: Sequence[Slot], request: Request, variant: str
    ) -> list[Due]:
        """What is ``due``, and ``request``, computed by ``variant``."""
        key = (variant, form_of((request,)))
        lane = self._lanes.get(key, Lane(*key)).with_one(request)
        self._tried = request, lane
        if key not in self._lanes:
            return [*due, Due(lane, self._able_of(lane, slots))]
        return [Due(lane, each.able) if each.lane.key == key else each for each in due]

    def left(self, slots: Sequence[Slot], taken: Sequence[Request]) -> Layout | None:
        """What is left of the layout that could be kept last; None if it has not all of them."""
        waiting = {one.id for lane in self._lanes.values() for one in lane.all}
        waiting.difference_update([one.id for one in taken])
        return self._kept.left(slots, self._speeds, waiting)

    def late_s(self, slots: Sequence[Slot], caution: float = LIKELY) -> float:
        """By how much the worst promise is late; 0 if all can be kept."""
        return Rest(self, slots).late_s(slots, caution) if self._lanes else 0.0

    def late_with_s(
        self, slots: Sequence[Slot], request: Request, variant: str, caution: float
    ) -> float:
        """By how much the worst promise would be late with one more; 0 if all could be kept.

        What cannot be kept anyway does not count, as long as it is due before that one.
        """
        rest = Rest(self, slots, newcomer=(request, variant))
        late_s = later_s = rest.late_s(slots, caution)
        if rest.kept is not None:
            self._kept.replace(slots, rest.kept)
        else:
            later_s = rest.late_s(slots, caution, request.deadline_s)
        return late_s if later_s or not late_s or not self.late_s(slots, caution) else 0.0

    def fits(self, slots: Sequence[Slot], request: Request, variant: str, caution: float) -> bool:
        """Whether all promises could be kept with one more."""
        return not Rest(self, slots, newcomer=(request, variant)).late_s(slots, caution)

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
            rows = lane.rows_before(due_s)
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
            able = [speed for speed, _ in self._able_of(lane, slots)]
            if not able:
                return math.inf
            rows = lane.all_rows
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
        return self._kept.has_room(slots, request, variant, self._speeds)

    def first(self, slots: Sequence[Slot]) -> dict[str, Step] | None:
        """With what workers begin, by their names, if all promises can be kept; else None."""
        rest = Rest(self, slots)
        rest.late_s(slots)
        if rest.kept is None:
            return None
        return {
            slots[number].worker: rest.kept.lines[other][-1]
            for number, other in swapped(slots, rest.kept)
            if rest.kept.lines[other]
        }

    def _able_of(self, lane: Lane, slots: Sequence[Slot]) -> Able:
        """How fast the kinds of workers are that may compute ``lane``, and which ones they are."""
        version = self._speeds.table.version
        if version != self._able_version or not _are_like(slots, self._able_slots):
            self._able.clear()
            self._able_version, self._able_slots = version, slots
        known = self._able.get(lane.key)
        if known is None:
            known = self._able[lane.key] = _able(self._speeds, lane, slots)
        return known


def _without(due: Sequence[Due], taken: Sequence[Request], until_s: float) -> list[Due]:
    """What is ``due`` but for those ``taken``, all of which are due by ``until_s``."""
    leading = _leading(due, taken)
    if leading is not None:  # as mostly
        lanes = [each.lane.without_first(leading[number]) for number, each in enumerate(due)]
    else:
        ids = {request.id for request in taken}
        lanes = [each.lane.without(ids, until_s) for each in due]
    return [Due(lane, due[number].able) for number, lane in enumerate(lanes) if len(lane)]


def _leading(due: Sequence[Due], taken: Sequence[Request]) -> list[int] | None:
    """How many of each lane are ``taken``, if all of these are the first of their lanes, in this order."""
    counts = [0] * len(due)
    for request in taken:
        for number, each in enumerate(due):
            lane = each.lane
            at = lane.begin + counts[number]
            if at < len(lane.requests) and lane.requests[at] is request:
                counts[number] += 1
                break
        else:
            return None
    return counts


def _last_s(requests: Sequence[Request]) -> float:
    """The last of their deadlines; minus infinite if none has one."""
    last_s = -math.inf
    for request in requests:
        if last_s < request.deadline_s < math.inf:
            last_s = request.deadline_s
    return last_s


def _are_like(slots: Sequence[Slot], others: Sequence[Slot]) -> bool:
    """Whether each of ``slots`` is like that of ``others`` at its place."""
    if slots is others:
        return True
    return len(slots) == len(others) and all(
        slot.is_like(others[number]) for number, slot in enumerate(slots)
    )


def _able(speeds: Speeds, lane: Lane, slots: Sequence[Slot]) -> Able:
    """How fast the kinds of workers are that may compute a lane, and which ones they are."""
    able: dict[str, tuple[Speed, list[int]]] = {}
    for number, slot in enumerate(slots):
        if lane.variant in slot.models:
            if slot.kind not in able:
                able[slot.kind] = speeds.of(lane.variant, slot.kind, lane.form), []
            able[slot.kind][1].append(number)
    return list(able.values())
