"""Which deadlines can be promised to requests of a family, and what could be instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

from rootserve.server.core.decisions import Infeasible
from rootserve.server.core.family import KNOWN, Family, may_compute
from rootserve.server.core.promises import Promises
from rootserve.server.core.queue import Request, form_of
from rootserve.server.core.speeds import Speeds
from rootserve.server.core.worker import Slot

_CLEARLY: Final = 0.95
"""Of the time of a row: a variant that takes no less than that is not faster."""

RETRY_S: Final = 1.0
"""When it may be worth to try again where nothing can be promised at all."""


def plan_variant(family: Family, request: Request, speeds: Speeds, kinds: frozenset[str]) -> str:
    """The variant that computes ``request`` when there is no time: the fastest that may.

    It stays the same until another one is clearly faster, so that such requests can share batches.
    """
    form = form_of((request,))
    key = (request.floor, request.allowed, form)
    able = family.able(request)
    fastest = speeds.fastest(able, kinds, form)
    last = family.fastest.get(key)
    if last == fastest:
        return fastest
    if last in able and (
        speeds.row_s(fastest, kinds, form) >= _CLEARLY * speeds.row_s(last, kinds, form)
    ):
        return last
    if len(family.fastest) > KNOWN:
        family.fastest.clear()  # floors are the callers'
    family.fastest[key] = fastest
    return fastest


@final
class Admission:
    """What is promised, when ``slots`` are free, and with how much ``caution`` promises are made.

    ``caution`` is one of :data:`rootserve.server.core.layout.LIKELY` to ``SURE``.
    """

    __slots__ = ("caution", "promises", "slots", "speeds")

    def __init__(
        self, promises: Promises, slots: Sequence[Slot], speeds: Speeds, caution: float
    ) -> None:
        self.promises, self.slots = promises, slots
        self.speeds, self.caution = speeds, caution

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of workers that there are."""
        return frozenset(slot.kind for slot in self.slots)

    def late_s(self, request: Request, variant: str) -> float:
        """By how much promises would be broken, if one were made to ``request``; 0 if all can be kept."""
        late_s = self._alone_s(request, variant) - request.deadline_s
        if late_s > 0.0:
            return late_s
        if self.promises.has_room(self.slots, request, variant):
            return 0.0
        late_s = self.promises.lacking_s(self.slots, request, variant)
        return late_s or self.promises.late_with_s(self.slots, request, variant, self.caution)

    def _alone_s(self, request: Request, variant: str) -> float:
        """When ``request`` is done at the latest, if it is the next."""
        form = form_of((request,))
        ends_s = [math.inf]
        for slot in self.slots:
            if variant in slot.models:
                cost = self.speeds.of(variant, slot.kind, form).cost(request.rows)
                ends_s.append(slot.after(cost).within_s(self.caution))
        return min(ends_s)

    def alternatives(self, family: Family, request: Request, late_s: float) -> Infeasible:
        """What could be promised instead to ``request``, whose promise would be broken by ``late_s``."""
        variant = plan_variant(family, request, self.speeds, self.kinds)
        free_s = min((slot.free_s for slot in self.slots), default=0.0)
        own_s = self._alone_s(request, variant) - free_s
        # What is missing, or behind all that is promised, or behind the last of those deadlines as well.
        missing_s = request.deadline_s + late_s
        end_s = max(missing_s, self.promises.end_s(self.slots) + own_s)
        earliest_s = max(self.promises.last_s(), end_s) + own_s
        if end_s < math.inf:
            for each_s in (missing_s, end_s):
                later = request._replace(deadline_s=each_s)
                if self._fits(later, variant):
                    earliest_s = each_s
                    break
        floor = self._floor(family, request) if request.floor else None
        retry_s = earliest_s - request.deadline_s
        return Infeasible(earliest_s, floor, retry_s if retry_s < math.inf else RETRY_S)

    def _floor(self, family: Family, request: Request) -> float | None:
        """The highest floor below that of ``request`` with which its deadline could be promised."""
        tried = plan_variant(family, request, self.speeds, self.kinds)
        lowest = plan_variant(family, request._replace(floor=0.0), self.speeds, self.kinds)
        if lowest == tried or not self._fits(request, lowest):
            return None
        for member in family.members:
            lower = request._replace(floor=member.accuracy)
            if member.accuracy >= request.floor or not may_compute(lower, member):
                continue
            variant = plan_variant(family, lower, self.speeds, self.kinds)
            if variant != tried:
                tried = variant
                if variant == lowest or self._fits(lower, variant):
                    return member.accuracy
        return None

    def _fits(self, request: Request, variant: str) -> bool:
        if self._alone_s(request, variant) > request.deadline_s:
            return False
        return self.promises.fits(self.slots, request, variant, self.caution)
