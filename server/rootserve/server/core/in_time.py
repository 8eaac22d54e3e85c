"""The policy that is used: everything in time, and then the most accurate variant there is time for.

A batch begins with the request that is due first, and takes as many of those behind it as are in time with
it. Time has a price: the chance that a second that is used now is missed later, when more is asked for than
can be done (:meth:`rootserve.server.core.demand.Demand.price`), in answers of the fastest variant. Of the
variants after which all that was promised can still be kept (:mod:`rootserve.server.core.promises`), the one
is taken whose accuracy is worth most after its time is paid for: the most accurate one while little waits,
and under overload that of which most answers times their accuracy are had in a second. A variant that is not
the fastest leaves time for somebody who comes meanwhile with a near deadline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Final, final

from rootserve.server.core.decisions import Candidate, Choice, Others
from rootserve.server.core.family import Member, may_compute
from rootserve.server.core.layout import Step
from rootserve.server.core.policy import Pick, View, Wait
from rootserve.server.core.promises import Rest
from rootserve.server.core.queue import Request, form_of, rows_of, soonest_s
from rootserve.server.core.speeds import Cost, Speed, beyond_s
from rootserve.server.core.worker import Slot

_NEXT: Final = 0.6
"""With so much caution somebody who comes while a batch is computed is in time behind it."""


@final
class _Option:
    """A variant for a batch on one worker, and what that batch costs."""

    __slots__ = ("cost", "member", "requests", "rows")

    def __init__(
        self, member: Member, requests: tuple[Request, ...], rows: int, cost: Cost
    ) -> None:
        self.member, self.requests, self.rows, self.cost = member, requests, rows, cost


class MostAccurateInTime:
    """See the head of this file."""

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

    @staticmethod
    def _begin_with(
        view: View, slot: Slot, head: Request, fastest: Member, told: list[Candidate]
    ) -> Pick | None:
        """The batch that begins with ``head``."""
        rest: Rest | None = None
        without: tuple[Request, ...] = ()
        too_slow_s = math.inf
        speed = view.speeds.of(fastest.variant, slot.kind, form_of((head,)))
        own_s = speed.cost(head.rows).within_s(_NEXT)
        next_s = view.now + view.demand.tight_s - own_s
        members = _by_worth(view, slot, head, fastest)
        for number, member in enumerate(members):
            option = _fill(view, slot, head, member)
            if option is None or option.cost.mean_s >= too_slow_s:
                continue
            if member is not fastest and slot.after(option.cost).within_s(_NEXT) > next_s:
                _tell(view, told, option, "who comes next would be late")
                continue
            if rest is None or without != option.requests:
                without = option.requests
                rest = Rest(view.promises, view.slots, without)
            if rest.late_s(_after(view, slot, option.cost)):
                _tell(view, told, option, "a promise would be broken")
                too_slow_s = option.cost.mean_s
                continue
            _tell(view, told, option, "chosen")
            less = members[number + 1 :]
            reason = "the fastest" if member is fastest else "the most accurate in time"
            if any(other.accuracy > member.accuracy for other in less):
                reason = "worth most, accuracy less the price of its time"
            others = _others(view, slot, option, less)
            return _picked(slot, option, _why(view, option, told, reason, others), rest)
        return None

    def _fall_back(self, view: View, slot: Slot, told: list[Candidate]) -> Pick | None:
        """What the promises need first, or as many in time as possible when not all can be."""
        first = view.promises.first(view.slots)
        if first is None:
            return _as_many(view, slot, told)
        front = first.get(slot.worker)
        return self._front(view, slot, front, told) if front else None

    @staticmethod
    def _front(view: View, slot: Slot, front: Step, told: list[Candidate]) -> Pick | None:
        wanted = {request.id for request in front.requests}
        requests = tuple(request for request in view.requests if request.id in wanted)
        if not requests:
            return None  # of another family
        again = next((request for request in requests if request.attempts), None)
        if again is not None:
            requests = (again,)
        member = next(one for one in view.members if one.variant == front.variant)
        rows = rows_of(requests)
        cost = view.speeds.of(member.variant, slot.kind, form_of(requests)).cost(rows)
        option = _Option(member, requests, rows, cost)
        return _picked(slot, option, _why(view, option, told, "promised first"))


def _after(view: View, slot: Slot, cost: Cost) -> list[Slot]:
    """The workers, once ``slot`` is through with a batch of this ``cost``."""
    return [other.after(cost) if other is slot else other for other in view.slots]


def _heads(view: View, slot: Slot) -> Iterator[tuple[Request, Member]]:
    """The request that is due first, and the first promised one; each with the fastest variant for it."""
    first = True
    for request in view.requests:
        if not first and request not in view.promises:
            continue
        form = form_of((request,))
        speeds = view.speeds.each(view.variants, slot.kind, form)
        fastest: Member | None = None
        its: Speed | None = None
        for member, speed in zip(view.members, speeds, strict=True):
            if (
                (its is None or speed.row_s < its.row_s)
                and member.variant in slot.models
                and may_compute(request, member)
            ):
                fastest, its = member, speed
        if fastest is None or its is None:
            continue
        if slot.free_s + its.cost(request.rows).mean_s > request.deadline_s:
            continue
        yield request, fastest
        if request in view.promises:
            return
        first = False


def _by_worth(view: View, slot: Slot, head: Request, fastest: Member) -> list[Member]:
    """The variants that may compute ``head``, by the worth of their accuracy less that of their time.

    Those that take longer than a more accurate one are not among them.
    """
    form = form_of((head,))
    speed = view.speeds.of(fastest.variant, slot.kind, form)
    rows = min(view.rows, speed.best)
    price = view.demand.price(view.rows, speed, len(view.slots), view.now)
    second = price * fastest.accuracy / max(speed.row_s, 1e-9) / rows
    worth: list[tuple[float, Member]] = []
    least_s = math.inf
    means_s = view.speeds.means_s(view.variants, slot.kind, rows, form)
    for member, mean_s in zip(view.members, means_s, strict=True):
        if member.variant not in slot.models or not may_compute(head, member):
            continue
        if mean_s < least_s or member is fastest:
            least_s = min(least_s, mean_s)
            worth.append((member.accuracy - second * mean_s, member))
    worth.sort(key=itemgetter(0), reverse=True)
    return [member for _, member in worth]


def _fill(view: View, slot: Slot, head: Request, member: Member) -> _Option | None:
    """The batch of ``head`` and those due next that ``member`` may compute, all in time."""
    speed = view.speeds.of(member.variant, slot.kind, form_of((head,)))
    most = max(head.rows, min(speed.best, view.max_rows))
    cost = speed.cost(head.rows)
    if slot.after(cost).within_s() > head.deadline_s:
        return None
    if head.attempts:
        return _Option(member, (head,), head.rows, cost)
    able = _able(view, head, member, most)
    # Mostly there is time for all of them.
    rows = rows_of(able)
    cost = view.speeds.of(member.variant, slot.kind, form_of(able)).cost(rows)
    if slot.after(cost).within_s() <= soonest_s(able):
        return _Option(member, tuple(able), rows, cost)
    return _fill_in_time(view, slot, member, able)


def _able(view: View, head: Request, member: Member, most: int) -> list[Request]:
    """``head`` and those due next that ``member`` may compute, up to ``most`` rows."""
    able, rows = [head], head.rows
    for request in view.requests:
        if request.attempts or request is head:
            continue
        rows += request.rows
        if rows > most:
            break
        if (request.floor or request.allowed) and not may_compute(request, member):
            rows -= request.rows
            continue
        able.append(request)
    return able


def _fill_in_time(view: View, slot: Slot, member: Member, able: Sequence[Request]) -> _Option:
    """The first of ``able``, which alone is in time, and as many others as are in time with it."""
    taken = [able[0]]
    files, soonest_s = able[0].files, able[0].deadline_s
    speed = view.speeds.of(member.variant, slot.kind, form_of(taken))
    rows, cost = able[0].rows, speed.cost(able[0].rows)
    free_s, variance, tail = slot.free_s, slot.variance, slot.tail
    for request in able[1:]:
        if request.files and not files:
            files = True
            speed = view.speeds.of(member.variant, slot.kind, form_of((request,)))
        more = rows + request.rows
        larger = speed.cost(more)
        end_s = free_s + larger.mean_s + beyond_s(variance + larger.variance, tail + larger.tail)
        if end_s > soonest_s:
            break
        if end_s > request.deadline_s:
            continue
        taken.append(request)
        rows, cost, soonest_s = more, larger, min(soonest_s, request.deadline_s)
    return _Option(member, tuple(taken), rows, cost)


def _as_many(view: View, slot: Slot, told: list[Candidate]) -> Pick | None:
    """The batch of which most rows per second are done in time."""
    best: _Option | None = None
    for head, fastest in _heads(view, slot):
        speed = view.speeds.of(fastest.variant, slot.kind, form_of((head,)))
        size = 1
        while True:
            option = _in_time(view, slot, fastest, speed.cost(size), size)
            if option and (
                best is None or option.rows * best.cost.mean_s > best.rows * option.cost.mean_s
            ):
                best = option
            if size >= speed.best:
                break
            size = min(speed.best, 2 * size)
    if best is None:
        return None
    return _picked(slot, best, _why(view, best, told, "as many in time as possible"))


def _in_time(view: View, slot: Slot, member: Member, cost: Cost, most: int) -> _Option | None:
    """The first requests, ``most`` rows of them, that a batch of this ``cost`` has done in time.

    Rather: a standard deviation later than in the mean.
    """
    taken: list[Request] = []
    rows = 0
    end_s = slot.free_s + cost.mean_s + math.sqrt(slot.variance + cost.variance)
    for request in view.requests:
        if end_s > request.deadline_s or not may_compute(request, member):
            continue
        if request.attempts:
            if taken:
                continue
            return _Option(member, (request,), request.rows, cost)
        if rows + request.rows > most:
            break
        taken.append(request)
        rows += request.rows
    return _Option(member, tuple(taken), rows, cost) if taken else None


def _tell(view: View, told: list[Candidate], option: _Option, verdict: str) -> None:
    if view.explain:
        finish_s = view.now + option.cost.within_s()
        told.append(Candidate(option.member.variant, option.rows, finish_s, verdict))


def _picked(slot: Slot, option: _Option, choice: Choice | None, rest: Rest | None = None) -> Pick:
    return Pick(option.member.variant, option.requests, slot.worker, choice, rest)


def _why(
    view: View,
    option: _Option,
    told: Sequence[Candidate],
    reason: str,
    others: Others | None = None,
) -> Choice | None:
    """Why ``option`` was taken, if anybody is to know."""
    if not view.explain:
        return None
    slack_s = soonest_s(option.requests) - view.now
    rate = view.demand.rate(view.now)
    return Choice(slack_s, len(view.requests), rate, tuple(told), reason, others)


def _others(view: View, slot: Slot, option: _Option, less: Sequence[Member]) -> Others | None:
    """The variants that were not tried, of which ``less`` are worth less than that of ``option``."""
    if not view.explain:
        return None
    speeds = view.speeds.each(view.variants, slot.kind, form_of(option.requests))
    plains = [speed.batches.of(option.rows) for speed in speeds]
    head, pace = option.requests[0], speeds[0].pace
    return Others(view.members, plains, pace, view.now, slot.models, head, less)
