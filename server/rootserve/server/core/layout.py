"""When which worker computes what was promised, and the last such layout that can be kept.

A layout that is made anew after something was taken from the old one may pack what is left into other
batches, and those may need more time. So the one that showed that all can be kept is itself kept, as the
proof of it: what is done as it says, or taken out of it, leaves the rest of it in time.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Collection, Sequence
from typing import NamedTuple

from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Speeds
from rootserve.server.core.worker import Slot

EXACT_S = 1e-9
"""Sums of times are no more exact than this."""


class Part(NamedTuple):
    """A batch of a layout; its requests by deadline."""

    variant: str
    form: str
    requests: Sequence[Request]


class Layout(NamedTuple):
    """When each worker begins at the latest, and its batches, the last one first.

    Infinite if it need not begin at all; minus infinite if more is wanted of it than it can ever do.
    """

    starts_s: list[float]
    parts: list[list[Part]]


class Kept:
    """The last layout with which all promises could be kept, and newcomers that go before it."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Part]] = {}
        self._new: dict[str, list[tuple[float, int, Part]]] = {}
        self._workers: list[str] = []
        self._starts_s: list[float] = []
        self._new_s = 0.0

    def replace(self, slots: Sequence[Slot], layout: Layout) -> None:
        """From now on, ``layout`` of ``slots`` is the one."""
        self._workers = [slot.worker for slot in slots]
        self._parts = dict(zip(self._workers, layout.parts, strict=True))
        self._starts_s = layout.starts_s
        self._new = {}
        self._new_s = 0.0

    def has_room(self, slots: Sequence[Slot], part: Part, speeds: Speeds) -> bool:
        """Whether ``part``, of one request, is in time before all of the layout; if so, it is there."""
        if [slot.worker for slot in slots] != self._workers:
            return False
        (request,) = part.requests
        able = [slot for slot in slots if part.variant in slot.models]
        if not able:
            return False
        new_s = self._new_s + max(
            speeds.of(part.variant, slot.kind, part.form).seconds(request.rows) for slot in able
        )
        for slot, start_s in zip(slots, self._starts_s, strict=True):
            if slot.free_s + new_s > min(start_s, request.deadline_s):
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
        starts, parts = list[float](), list[list[Part]]()
        for slot in slots:
            start_s = math.inf
            rest: list[Part] = []
            new = [part for _, _, part in self._new.get(slot.worker, ())]
            for part in (*self._parts.get(slot.worker, ()), *new):
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
                rows = sum(request.rows for request in requests)
                seconds = speeds.of(part.variant, slot.kind, part.form).seconds(rows)
                start_s = min(start_s, requests[0].deadline_s) - seconds
                rest.append(part._replace(requests=requests))
            starts.append(start_s)
            parts.append(rest)
        return None if missing else Layout(starts, parts)


def too_late_s(slots: Sequence[Slot], starts_s: Sequence[float]) -> float:
    """By how much workers are free later than such starts need; workers that are alike may swap them."""
    if len(slots) == 1:
        return _lateness(slots[0].free_s, starts_s[0])
    return max(
        (
            _lateness(slots[number].free_s, starts_s[other])
            for number, other in swapped(slots, starts_s)
        ),
        default=math.inf,
    )


def swapped(slots: Sequence[Slot], starts_s: Sequence[float]) -> list[tuple[int, int]]:
    """Whose part each of ``slots`` takes, by numbers: of those alike, who is free first begins first."""
    groups: dict[tuple[str, frozenset[str]], list[int]] = {}
    for number, slot in enumerate(slots):
        groups.setdefault((slot.kind, slot.models), []).append(number)
    return [
        pair
        for group in groups.values()
        for pair in zip(
            sorted(group, key=lambda number: slots[number].free_s),
            sorted(group, key=starts_s.__getitem__),
            strict=True,
        )
    ]


def _lateness(free_s: float, start_s: float) -> float:
    late_s = free_s - start_s
    return late_s if late_s > EXACT_S else 0.0
