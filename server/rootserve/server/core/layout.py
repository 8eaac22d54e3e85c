"""When which worker computes what was promised, and the last such layout that can be kept.

A layout that is made anew after something was taken from the old one may pack what is left into other
batches, and those may need more time. So the one that showed that all can be kept is itself kept, as the
proof of it: what is done as it says, or taken out of it, leaves the rest of it in time.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Collection, Sequence
from typing import Final, final

from rootserve.server.core.lane import Lane
from rootserve.server.core.latency import Z99
from rootserve.server.core.queue import Request, form_of, rows_of
from rootserve.server.core.speeds import Cost, Speeds
from rootserve.server.core.worker import Slot

EXACT_S: Final = 1e-9
"""Sums of times are no more exact than this."""

LIKELY: Final = 0.25
SURE: Final = 1.5
"""How much caution there may be: of what one in a hundred takes beyond the mean, so much is kept free."""


@final
class Step:
    """A batch of a layout: of the requests of ``lane`` from ``begin`` to ``end``.

    ``cost``: of it, by ``worker``, a number. ``due_s``: when it has to be done, which is the first of its
    deadlines. ``start_s``: when that worker begins with it at the latest, if all take the mean.
    """

    __slots__ = ("begin", "cost", "due_s", "end", "lane", "start_s", "worker")

    def __init__(  # noqa: PLR0913, PLR0917 - what a batch of a layout is
        self,
        lane: Lane,
        begin: int,
        end: int,
        cost: Cost,
        due_s: float,
        worker: int = 0,
        start_s: float = 0.0,
    ) -> None:
        self.lane, self.begin, self.end = lane, begin, end
        self.cost, self.due_s = cost, due_s
        self.worker, self.start_s = worker, start_s

    @property
    def behind(self) -> int:
        """With the last how many requests of its lane it begins."""
        return len(self.lane.due) - self.begin

    @property
    def variant(self) -> str:
        """Which variant computes it."""
        return self.lane.variant

    @property
    def requests(self) -> list[Request]:
        """Its requests, by deadline."""
        return self.lane.requests[self.begin : self.end]


Line = list[Step]
"""What one worker computes, the last batch first."""


class Layout:
    """The line of each worker, and when each has to begin with its own at the latest, with all caution.

    ``steps``: all of them, in the order in which they were laid out.
    """

    __slots__ = ("_starts_s", "lines", "steps")

    def __init__(self, steps: list[Step], workers: int) -> None:
        self.steps = steps
        self.lines: list[Line] = [[] for _ in range(workers)]
        for step in steps:
            self.lines[step.worker].append(step)
        self._starts_s: list[float] | None = None

    @property
    def starts_s(self) -> list[float]:
        """See :func:`latest_s`."""
        if self._starts_s is None:
            self._starts_s = [latest_s(line) for line in self.lines]
        return self._starts_s


def latest_s(line: Line) -> float:
    """When a worker has to begin with ``line`` at the latest, with all caution.

    Infinite if it need not begin at all.
    """
    start_s = math.inf
    mean_s = variance = tail = 0.0
    for step in reversed(line):
        cost = step.cost
        mean_s += cost.mean_s
        variance += cost.variance
        tail += cost.tail
        beyond = Z99 * math.sqrt(variance) + tail / variance if variance else 0.0
        latest = step.due_s - mean_s - SURE * beyond
        start_s = min(start_s, latest)
    return start_s


def lateness(slot: Slot, line: Line, caution: float, since_s: float = -math.inf) -> float:
    """By how much a batch of ``line`` is late that begins when ``slot`` is free; 0 if all are in time.

    In time is what is done by its deadline with so much ``caution``. Of those batches alone that have
    requests which are due at ``since_s`` or later.
    """
    late_s = EXACT_S
    end_s, variance, tail = slot.free_s, slot.variance, slot.tail
    for step in reversed(line):
        cost = step.cost
        end_s += cost.mean_s
        variance += cost.variance
        tail += cost.tail
        beyond = Z99 * math.sqrt(variance) + tail / variance if variance else 0.0
        over_s = end_s + caution * beyond - step.due_s
        if over_s > late_s and step.lane.due[step.end - 1] >= since_s:
            late_s = over_s
    return late_s if late_s > EXACT_S else 0.0


def too_late_s(
    slots: Sequence[Slot], layout: Layout, caution: float, since_s: float = -math.inf
) -> float:
    """By how much the worst batch of ``layout`` is late; workers that are alike may swap their lines.

    ``caution`` and ``since_s`` as for :func:`lateness`.
    """
    if len(slots) == 1:
        return lateness(slots[0], layout.lines[0], caution, since_s)
    late_s = -math.inf
    for number, other in swapped(slots, layout):
        late_s = max(late_s, lateness(slots[number], layout.lines[other], caution, since_s))
    return late_s if slots else math.inf


def swapped(slots: Sequence[Slot], layout: Layout) -> list[tuple[int, int]]:
    """Whose line each of ``slots`` takes, by numbers: of those alike, who is free first begins first."""
    starts_s = layout.starts_s
    pairs: list[tuple[int, int]] = []
    for group in _alike(slots):
        if len(group) == 1:
            pairs.append((group[0], group[0]))
            continue
        free = sorted([(slots[number].free_s, number) for number in group])
        starts = sorted([(starts_s[number], number) for number in group])
        pairs += [(free[place][1], starts[place][1]) for place in range(len(group))]
    return pairs


def _alike(slots: Sequence[Slot]) -> list[list[int]]:
    """Which of ``slots`` are of the same kind and have the same variants, by numbers."""
    groups: list[list[int]] = []
    for number, slot in enumerate(slots):
        for group in groups:
            if slot.is_like(slots[group[0]]):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


class Kept:
    """The last layout with which all promises could be kept, and newcomers that go before it."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._new: dict[str, list[tuple[float, int, Request, str]]] = {}
        """Those that go before it, with the variants that compute them."""
        self._starts_s: dict[str, float] = {}
        self._new_s = 0.0

    def replace(self, slots: Sequence[Slot], layout: Layout) -> None:
        """From now on, ``layout`` of ``slots`` is the one."""
        self._lines, self._starts_s, starts_s = {}, {}, layout.starts_s
        for number, slot in enumerate(slots):
            self._lines[slot.worker] = layout.lines[number]
            self._starts_s[slot.worker] = starts_s[number]
        self._new = {}
        self._new_s = 0.0

    def has_room(
        self, slots: Sequence[Slot], request: Request, variant: str, speeds: Speeds
    ) -> bool:
        """Whether ``variant`` has ``request`` done in time before all of the layout; if so, it is there.

        With all caution, as which means add up, which is quickly done and on the safe side.
        """
        form = form_of((request,))
        first: Slot | None = None
        most_s = 0.0
        for slot in slots:
            if variant in slot.models:
                first = first or slot
                cost = speeds.of(variant, slot.kind, form).cost(request.rows)
                most_s = max(most_s, cost.within_s(SURE))
        if first is None:
            return False
        new_s = self._new_s + most_s
        for slot in slots:
            end_s = slot.within_s(SURE) + new_s
            if end_s > min(self._starts_s.get(slot.worker, -math.inf), request.deadline_s):
                return False
        self._new_s = new_s
        new = self._new.setdefault(first.worker, [])
        insort(new, (-request.deadline_s, request.id, request, variant))
        return True

    def left(
        self,
        slots: Sequence[Slot],
        speeds: Speeds,
        waiting: Collection[int],
    ) -> Layout | None:
        """What is left of it for those ``waiting``; None if it has not all of them."""
        missing = len(waiting)
        steps: list[Step] = []
        for number, slot in enumerate(slots):
            batches = [
                (step.variant, step.lane.form, step.requests)
                for step in self._lines.get(slot.worker, ())
            ]
            for _, _, request, variant in self._new.get(slot.worker, ()):
                batches.append((variant, form_of((request,)), [request]))
            for variant, form, all_requests in batches:
                requests = [request for request in all_requests if request.id in waiting]
                if not requests:
                    continue
                if variant not in slot.models:
                    return None
                missing -= len(requests)
                lane = Lane(variant, form, requests)
                cost = speeds.of(variant, slot.kind, form).cost(rows_of(requests))
                steps.append(Step(lane, 0, len(requests), cost, lane.due[0], number))
        return None if missing else Layout(steps, len(slots))
