"""The policy that is used: everything in time, and then the most accurate variant there is time for.

A batch begins with the request that is due first. Of the variants that may compute it, the most accurate one
is taken after which

* all that was promised can still be kept (:mod:`rootserve.server.core.promises`), and
* somebody who comes while it is computed does not wait too long: until the worker is free, and for those
  that wait by then and go with the fastest variant, at most a share of the time that callers leave.

So the time that is there is used for accuracy as long as little waits, and when more comes than such
variants can do, the queue itself turns to faster ones. No rate has to be known exactly for that, and two
variants share the time when the rate lies between theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rootserve.server.core.decisions import Candidate, Choice
from rootserve.server.core.family import Member, may_compute
from rootserve.server.core.layout import Part
from rootserve.server.core.policy import Pick, View, Wait
from rootserve.server.core.queue import Request, form_of
from rootserve.server.core.worker import Slot

_SHARE = 0.5
"""Of the time that callers leave: so much may pass until somebody who comes is begun and done."""


class _Option(NamedTuple):
    """A variant for a batch on one worker, and how long that batch takes at most."""

    member: Member
    requests: tuple[Request, ...]
    rows: int
    seconds: float


class MostAccurateInTime:
    """See the head of this file. ``share``: how much of the time that callers leave may pass."""

    def __init__(self, share: float = _SHARE) -> None:
        self._share = share

    def choose(self, view: View) -> Pick | Wait:
        """See :class:`rootserve.server.core.policy.Policy`."""
        for slot in view.slots[: view.takers]:
            pick = self._for(view, slot)
            if pick is not None:
                return pick
        return Wait(math.inf)

    def _for(self, view: View, slot: Slot) -> Pick | None:
        """A batch for ``slot``, if there is one that spoils nothing."""
        told: list[Candidate] = []
        for head, fastest in _heads(view, slot):
            pick = self._begin_with(view, slot, head, fastest, told)
            if pick is not None:
                return pick
        return self._fall_back(view, slot, told)

    def _begin_with(
        self, view: View, slot: Slot, head: Request, fastest: Member, told: list[Candidate]
    ) -> Pick | None:
        """The batch that begins with ``head``."""
        row_s = view.speeds.of(fastest.variant, slot.kind).row_s
        found: _Option | None = None
        for member in _in_order(view, slot, head, fastest):
            if member is not fastest and not self._quick(view, slot, member, row_s):
                continue
            option = _fill(view, slot, head, member)
            if option is None:
                continue
            calm = self._calm(view, slot, option, row_s)
            if member is not fastest and not calm:
                _tell(view, told, option, "who comes next would wait too long")
                continue
            if not _keeps(view, slot, option):
                _tell(view, told, option, "a promise would be broken")
                continue
            found = option
            break
        if found is None:
            return None
        _tell(view, told, found, "chosen")
        reason = "the most accurate in time"
        if found.member is fastest:
            reason = "the fastest"
        return _picked(view, slot, found, told, reason)

    def _quick(self, view: View, slot: Slot, member: Member, row_s: float) -> bool:
        """Whether ``member`` may be in question for what waits."""
        speed = view.speeds.of(member.variant, slot.kind)
        rows = min(view.rows, speed.best, view.max_rows)
        return self._wait_s(view, rows, speed.usual_s(rows), row_s) <= self._limit_s(view)

    def _calm(self, view: View, slot: Slot, option: _Option, row_s: float) -> bool:
        speed = view.speeds.of(option.member.variant, slot.kind, form_of(option.requests))
        usual_s = speed.usual_s(option.rows)
        return self._wait_s(view, option.rows, usual_s, row_s) <= self._limit_s(view)

    def _limit_s(self, view: View) -> float:
        return self._share * view.tight_s

    @staticmethod
    def _wait_s(view: View, rows: int, seconds: float, row_s: float) -> float:
        """Until who comes next is done, with the fastest variant, if ``rows`` are computed in ``seconds``."""
        workers = len(view.slots)
        left = view.rows - rows + view.rate * seconds
        return seconds / workers + left * row_s / workers

    def _fall_back(self, view: View, slot: Slot, told: list[Candidate]) -> Pick | None:
        """What the promises need first, or as many in time as possible when not all can be."""
        first = view.promises.first(view.slots)
        if first is None:
            return _as_many(view, slot, told)
        front = first.get(slot.worker)
        return self._front(view, slot, front, told) if front else None

    @staticmethod
    def _front(view: View, slot: Slot, front: Part, told: list[Candidate]) -> Pick | None:
        wanted = {request.id for request in front.requests}
        requests = tuple(request for request in view.requests if request.id in wanted)
        if not requests:
            return None  # of another family
        again = next((request for request in requests if request.attempts), None)
        if again is not None:
            requests = (again,)
        member = next(one for one in view.members if one.variant == front.variant)
        rows = sum(request.rows for request in requests)
        seconds = view.speeds.of(member.variant, slot.kind, form_of(requests)).seconds(rows)
        return _picked(view, slot, _Option(member, requests, rows, seconds), told, "promised first")


def _keeps(view: View, slot: Slot, option: _Option) -> bool:
    """Whether all that was promised can be kept if ``slot`` computes ``option`` now."""
    if not view.promises:
        return True
    free_s = slot.free_s + option.seconds
    then = [other._replace(free_s=free_s) if other is slot else other for other in view.slots]
    return not view.promises.late_s(then, {request.id for request in option.requests})


def _heads(view: View, slot: Slot) -> Iterator[tuple[Request, Member]]:
    """The request that is due first, and the first promised one; each with the fastest variant for it."""
    first = True
    for request in view.requests:
        if not first and request.id not in view.promises:
            continue
        able = [
            member
            for member in view.members
            if member.variant in slot.models and may_compute(request, member)
        ]
        if not able:
            continue
        fastest = min(able, key=lambda member: view.speeds.of(member.variant, slot.kind).row_s)
        speed = view.speeds.of(fastest.variant, slot.kind, form_of((request,)))
        if slot.free_s + speed.seconds(request.rows) > request.deadline_s:
            continue
        yield request, fastest
        if request.id in view.promises:
            return
        first = False


def _in_order(view: View, slot: Slot, head: Request, fastest: Member) -> Iterator[Member]:
    """The variants that may compute ``head`` and are not slower than a more accurate one."""
    least = math.inf
    for member in view.members:
        if member.variant not in slot.models or not may_compute(head, member):
            continue
        row_s = view.speeds.of(member.variant, slot.kind).row_s
        if row_s < least or member is fastest:
            least = row_s
            yield member
        if member is fastest:
            return


def _fill(view: View, slot: Slot, head: Request, member: Member) -> _Option | None:
    """The batch of ``head`` and those due next that ``member`` may compute, all in time."""
    speed = view.speeds.of(member.variant, slot.kind, form_of((head,)))
    most = max(head.rows, min(speed.best, view.max_rows))
    rows, seconds = head.rows, speed.seconds(head.rows)
    left_s = head.deadline_s - slot.free_s
    if seconds > left_s:
        return None
    taken = [head]
    if head.attempts:
        return _Option(member, (head,), rows, seconds)
    files = head.files
    for request in view.requests:
        if request is head or request.attempts:
            continue
        if request.files and not files:
            files = True
            speed = view.speeds.of(member.variant, slot.kind, form_of((request,)))
        more = rows + request.rows
        if more > most:
            break
        if not may_compute(request, member):
            continue
        longer_s = speed.seconds(more)
        soonest_s = min(left_s, request.deadline_s - slot.free_s)
        if longer_s > left_s:
            break
        if longer_s > soonest_s:
            continue
        taken.append(request)
        rows, seconds, left_s = more, longer_s, soonest_s
    return _Option(member, tuple(taken), rows, seconds)


def _as_many(view: View, slot: Slot, told: list[Candidate]) -> Pick | None:
    """The batch of which most rows per second are done in time."""
    best: _Option | None = None
    for head, fastest in _heads(view, slot):
        speed = view.speeds.of(fastest.variant, slot.kind, form_of((head,)))
        size = 1
        while True:
            option = _in_time(view, slot, fastest, speed.seconds(size), size)
            if option and (best is None or option.rows * best.seconds > best.rows * option.seconds):
                best = option
            if size >= speed.best:
                break
            size = min(speed.best, 2 * size)
    if best is None:
        return None
    return _picked(view, slot, best, told, "as many in time as possible")


def _in_time(view: View, slot: Slot, member: Member, seconds: float, most: int) -> _Option | None:
    """The first requests, ``most`` rows of them, that a batch of ``seconds`` has done in time."""
    taken: list[Request] = []
    rows = 0
    for request in view.requests:
        if slot.free_s + seconds > request.deadline_s or not may_compute(request, member):
            continue
        if request.attempts:
            if taken:
                continue
            return _Option(member, (request,), request.rows, seconds)
        if rows + request.rows > most:
            break
        taken.append(request)
        rows += request.rows
    return _Option(member, tuple(taken), rows, seconds) if taken else None


def _tell(view: View, told: list[Candidate], option: _Option, verdict: str) -> None:
    if view.explain:
        finish_s = view.now + option.seconds
        told.append(Candidate(option.member.variant, option.rows, finish_s, verdict))


def _picked(
    view: View, slot: Slot, option: _Option, told: Sequence[Candidate], reason: str
) -> Pick:
    choice = None
    if view.explain:
        soonest_s = min(request.deadline_s for request in option.requests)
        choice = Choice(soonest_s - view.now, len(view.requests), view.rate, tuple(told), reason)
    return Pick(option.member.variant, option.requests, slot.worker, choice)
