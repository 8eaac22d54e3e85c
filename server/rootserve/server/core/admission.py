"""Which deadlines can be promised to requests of a family, and what could be instead."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rootserve.server.core.decisions import Infeasible
from rootserve.server.core.family import Family, may_compute
from rootserve.server.core.promises import Promises
from rootserve.server.core.queue import Request, form_of
from rootserve.server.core.speeds import Speeds
from rootserve.server.core.worker import Slot

_CLEARLY = 0.95
"""Of the time of a row: a variant that takes no less than that is not faster."""

_RETRY_S = 1.0
"""When it may be worth to try again where nothing can be promised at all."""


def plan_variant(family: Family, request: Request, speeds: Speeds, kinds: frozenset[str]) -> str:
    """The variant that computes ``request`` when there is no time: the fastest that may.

    It stays the same until another one is clearly faster, so that such requests can share batches.
    """
    key = (request.floor, request.allowed)
    able = [member.variant for member in family.members if may_compute(request, member)]
    fastest = min(able, key=lambda variant: speeds.row_s(variant, kinds))
    last = family.fastest.get(key)
    if last in able and speeds.row_s(fastest, kinds) >= _CLEARLY * speeds.row_s(last, kinds):
        return last
    if len(family.fastest) > 4096:
        family.fastest.clear()  # floors are the callers'
    family.fastest[key] = fastest
    return fastest


def late_s(
    promises: Promises, slots: Sequence[Slot], speeds: Speeds, request: Request, variant: str
) -> float:
    """By how much promises would be broken, if one were made to ``request``; 0 if all can be kept."""
    form = form_of((request,))
    alone_s = min(
        (
            max(0.0, slot.free_s)
            + speeds.of(variant, slot.kind, form).seconds(request.rows)
            - request.deadline_s
            for slot in slots
            if variant in slot.models
        ),
        default=math.inf,
    )
    if alone_s > 0.0:
        return alone_s
    if promises.has_room(slots, request, variant):
        return 0.0
    lacking_s = promises.lacking_s(slots, request, variant)
    if lacking_s:
        return lacking_s
    return promises.late_with_s(slots, request, variant)


def alternatives(
    promises: Promises,
    slots: Sequence[Slot],
    speeds: Speeds,
    family: Family,
    request: Request,
    late: float,
) -> Infeasible:
    """What could be promised instead to ``request``, to which no promise can be made.

    ``late``: by how much it would be broken.
    """
    kinds = frozenset(slot.kind for slot in slots)
    variant = plan_variant(family, request, speeds, kinds)
    alone_s = max(
        (
            speeds.of(variant, slot.kind, form_of((request,))).seconds(request.rows)
            for slot in slots
            if variant in slot.models
        ),
        default=math.inf,
    )
    # What is missing, or behind all that is promised, or behind the last of those deadlines.
    end_s = promises.end_s(slots) + alone_s
    for earliest_s in (request.deadline_s + late, end_s, promises.last_s() + alone_s):
        later = request._replace(deadline_s=earliest_s)
        if earliest_s >= request.deadline_s and (
            earliest_s == math.inf or not late_s(promises, slots, speeds, later, variant)
        ):
            break
    else:
        earliest_s = max(promises.last_s(), end_s, request.deadline_s + late) + alone_s
    floor = _floor(promises, slots, speeds, family, request) if request.floor else None
    retry_s = earliest_s - request.deadline_s
    return Infeasible(earliest_s, floor, retry_s if retry_s < math.inf else _RETRY_S)


def _floor(
    promises: Promises, slots: Sequence[Slot], speeds: Speeds, family: Family, request: Request
) -> float | None:
    """The highest floor below that of ``request`` with which its deadline could be promised."""
    kinds = frozenset(slot.kind for slot in slots)
    tried = plan_variant(family, request, speeds, kinds)
    for member in family.members:
        lower = request._replace(floor=member.accuracy)
        if member.accuracy >= request.floor or not may_compute(lower, member):
            continue
        variant = plan_variant(family, lower, speeds, kinds)
        if variant != tried:
            tried = variant
            if not late_s(promises, slots, speeds, lower, variant):
                return member.accuracy
    return None
