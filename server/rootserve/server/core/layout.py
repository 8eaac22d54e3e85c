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

from rootserve.server.core.latency import Z99
from rootserve.server.core.queue import Request, rows_of
from rootserve.server.core.speeds import Cost, Speeds
from rootserve.server.core.worker import Slot

EXACT_S: Final = 1e-9
"""Sums of times are no more exact than this."""

LIKELY: Final = 0.25
SURE: Final = 1.5
"""How much caution there may be: of what one in a hundred takes beyond the mean, so much is kept free."""


@final
class Part:
    """A batch of a layout; its requests by deadline."""

    __slots__ = ("form", "requests", "variant")

    def __init__(self, variant: str, form: str, requests: Sequence[Request]) -> None:
        self.variant, self.form, self.requests = variant, form, requests


@final
class Step:
    """A batch of a layout, what it costs, and when it has to be done."""

    __slots__ = ("cost", "due_s", "part")

    def __init__(self, due_s: float, cost: Cost, part: Part) -> None:
        self.due_s, self.cost, self.part = due_s, cost, part


Line = list[Step]
"""What one worker computes, the last batch first."""


class Layout:
    """The line of each worker, and when each has to begin with its own at the latest, with all caution."""

    __slots__ = ("_starts_s", "lines")

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines
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
        if over_s > late_s and step.part.requests[-1].deadline_s >= since_s:
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
    return max(
        (
            lateness(slots[number], layout.lines[other], caution, since_s)
            for number, other in swapped(slots, layout)
        ),
        default=math.inf,
    )


def swapped(slots: Sequence[Slot], layout: Layout) -> list[tuple[int, int]]:
    """Whose line each of ``slots`` takes, by numbers: of those alike, who is free first begins first."""
    groups: dict[tuple[str, frozenset[str]], list[int]] = {}
    for number, slot in enumerate(slots):
        groups.setdefault((slot.kind, slot.models), []).append(number)
    starts_s = layout.starts_s
    return [
        pair
        for group in groups.values()
        for pair in zip(
            sorted(group, key=lambda number: slots[number].free_s),
            sorted(group, key=starts_s.__getitem__),
            strict=True,
        )
    ]


class Kept:
    """The last layout with which all promises could be kept, and newcomers that go before it."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._new: dict[str, list[tuple[float, int, Part]]] = {}
        self._starts_s: dict[str, float] = {}
        self._new_s = 0.0

    def replace(self, slots: Sequence[Slot], layout: Layout) -> None:
        """From now on, ``layout`` of ``slots`` is the one."""
        workers = [slot.worker for slot in slots]
        self._lines = dict(zip(workers, layout.lines, strict=True))
        self._starts_s = dict(zip(workers, layout.starts_s, strict=True))
        self._new = {}
        self._new_s = 0.0

    def has_room(self, slots: Sequence[Slot], part: Part, speeds: Speeds) -> bool:
        """Whether ``part``, of one request, is in time before all of the layout; if so, it is there.

        With all caution, as which means add up, which is quickly done and on the safe side.
        """
        (request,) = part.requests
        able = [slot for slot in slots if part.variant in slot.models]
        if not able:
            return False
        new_s = self._new_s + max(
            speeds.of(part.variant, slot.kind, part.form).cost(request.rows).within_s(SURE)
            for slot in able
        )
        for slot in slots:
            end_s = slot.within_s(SURE) + new_s
            if end_s > min(self._starts_s.get(slot.worker, -math.inf), request.deadline_s):
                return False
        self._new_s = new_s
        insort(
            self._new.setdefault(able[0].worker, []),
            (-request.deadline_s, request.id, part),
        )
        return True

    def left(
        self,
        slots: Sequence[Slot],
        speeds: Speeds,
        waiting: Collection[int],
        without: Collection[int],
    ) -> Layout | None:
        """What is left of it for those ``waiting`` but ``without`` some; None if it has not all of them."""
        missing = len(waiting) - sum(1 for one in without if one in waiting)
        lines: list[Line] = []
        for slot in slots:
            rest: Line = []
            old = [step.part for step in self._lines.get(slot.worker, ())]
            new = [part for _, _, part in self._new.get(slot.worker, ())]
            for part in (*old, *new):
                requests = [
                    request
                    for request in part.requests
                    if request.id in waiting and request.id not in without
                ]
                if not requests:
                    continue
                if part.variant not in slot.models:
                    return None
                missing -= len(requests)
                rows = rows_of(requests)
                cost = speeds.of(part.variant, slot.kind, part.form).cost(rows)
                rest.append(
                    Step(requests[0].deadline_s, cost, Part(part.variant, part.form, requests))
                )
            lines.append(rest)
        return None if missing else Layout(lines)
