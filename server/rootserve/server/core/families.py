"""The families that are served: who is admitted, and which batch of them goes next."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from rootserve.server.core.admission import RETRY_S, Admission, plan_variant
from rootserve.server.core.decisions import Declined, Infeasible
from rootserve.server.core.family import KNOWN, Family, Member
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.layout import LIKELY, SURE
from rootserve.server.core.limits import Limits
from rootserve.server.core.policy import Pick, Policy, View, Wait
from rootserve.server.core.promises import Promises
from rootserve.server.core.queue import Request, form_of
from rootserve.server.core.shares import Shares
from rootserve.server.core.speeds import Speeds
from rootserve.server.core.worker import Slot

_UNKNOWN = Infeasible(math.inf, None, RETRY_S)
_ROW_S = attrgetter("row_s")

_DEAR: Final = 0.2
"""How much of the caution under lasting overload there is where time is as dear, for however short."""


class _Refused(NamedTuple):
    """A refusal, after how many changes of the promises, and how ``slots`` were then."""

    changes: int
    request: Request
    slots: Sequence[Slot]
    told: Infeasible

    def holds(self, request: Request, slots: Sequence[Slot], promises: Promises) -> bool:
        """Whether ``request`` has no better chance than that one had."""
        return (
            self.changes == promises.changes
            and request.deadline_s <= self.request.deadline_s
            and request.rows >= self.request.rows
            and len(slots) == len(self.slots)
            and all(
                now.worker == then.worker and now.free_s >= then.free_s
                for now, then in zip(slots, self.slots, strict=True)
            )
        )


class Families:
    """All families by name, what was promised to whom, and the policy that chooses."""

    def __init__(self, limits: Limits, policy: Policy, table: LatencyTable) -> None:
        self._limits = limits
        self._policy = policy
        self._families: dict[str, Family] = {}
        self.speeds = Speeds(table, limits.max_batch_rows)
        self.promises = Promises(self.speeds)
        self._shares = Shares()
        self._refused: dict[Hashable, _Refused] = {}

    def __iter__(self) -> Iterator[Family]:
        return iter(self._families.values())

    def __contains__(self, name: str) -> bool:
        return name in self._families

    def __bool__(self) -> bool:
        return bool(self._families)

    def get(self, name: str) -> Family | None:
        """The family called ``name``, if it is served."""
        return self._families.get(name)

    def served(self, name: str, members: Iterable[Member], kinds: frozenset[str]) -> None:
        """Requests for ``name`` may be computed by any of ``members``; replaces what was told before.

        ``kinds``: of the workers that there are. When a variant goes, what was promised is laid out with the
        others; nothing is promised any more to requests that none of them may compute.
        """
        family = self._families.get(name)
        if family is None:
            self._families[name] = Family(name, members, self._limits.patience_s)
            return
        before = family.variants
        family.serve(members)
        if set(before) <= set(family.variants):
            return
        promised = [request for request in family.requests if request in self.promises]
        self.promises.forget(promised)
        for request in promised:
            if family.able(request):
                self.promises.add(request, plan_variant(family, request, self.speeds, kinds))

    def gone(self, name: str) -> tuple[Request, ...]:
        """Nobody will compute ``name``: forget it, and return the requests that wait for it."""
        family = self._families.pop(name, None)
        if family is None:
            return ()
        for request in family.requests:
            self.promises.remove(request)
        self._shares.release(family.requests, family.held_s)
        return tuple(family.requests)

    def offer(
        self, family: Family, request: Request, slots: Sequence[Slot], now: float
    ) -> tuple[Declined | None, Infeasible | None]:
        """Take ``request``, or say why not and what could be promised instead."""
        family.demand.came(request, now)
        if not family.able(request):
            return Declined.UNSERVED, None
        kinds = frozenset(slot.kind for slot in slots)
        variant = plan_variant(family, request, self.speeds, kinds)
        row_s = self.speeds.row_s(variant, kinds, form_of((request,)))
        seconds = request.rows * row_s if row_s < math.inf else 0.0
        self._shares.asked(request.caller, seconds, now)
        if self._is_full(family, request, now):
            return Declined.QUEUE_FULL, None
        if request.deadline_s < math.inf:
            self.promises.drop_broken(slots, now)
            caution = self._caution(family, kinds, len(slots), now)
            slots = self._left(request, slots, now)
            told = self._infeasible(
                family, request, variant, Admission(self.promises, slots, self.speeds, caution)
            )
            if told is None:
                self.promises.add(request, variant)
            elif self._limits.admission:
                family.demand.lost(request.rows, now)
                return Declined.INFEASIBLE, told
            due_s = request.deadline_s
        else:
            turn_s = self._shares.due_s(request.caller, seconds, request.arrived_s, len(slots), now)
            due_s = turn_s + request.priority * self._limits.patience_s
        self._shares.hold(request.caller, seconds)
        family.add(request, due_s, seconds)
        return None, None

    def _infeasible(
        self, family: Family, request: Request, variant: str, admission: Admission
    ) -> Infeasible | None:
        """None if the deadline of ``request`` can be promised, or what could be instead.

        What is due no later than one that was refused is not looked at anew, as long as nothing was promised
        or taken since, and nobody is free earlier.
        """
        key = (family.name, variant, request.floor, request.allowed, request.caller, request.files)
        known = self._refused.get(key)
        if known is not None and known.holds(request, admission.slots, self.promises):
            retry_s = known.told.earliest_s - request.deadline_s
            return known.told._replace(retry_s=retry_s if retry_s < math.inf else RETRY_S)
        late_s = admission.late_s(request, variant)
        if not late_s:
            return None
        if not self._limits.admission:
            return _UNKNOWN
        told = admission.alternatives(family, request, late_s)
        if told.floor is None:
            if len(self._refused) > KNOWN:
                self._refused.clear()
            self._refused[key] = _Refused(self.promises.changes, request, admission.slots, told)
        return told

    def _caution(self, family: Family, kinds: frozenset[str], workers: int, now: float) -> float:
        """With how much caution promises are made.

        As long as the workers can do what comes, who is refused for fear of a slow batch is refused in vain
        most of the time. The dearer time is, the more a promise that is broken costs others, and under
        lasting overload time that one is refused goes to another.
        """
        if not workers:
            return LIKELY
        fastest = self.speeds.fastest(family.variants, kinds)
        dear = family.demand.lasts(self.speeds.row_s(fastest, kinds) / workers, now)
        if dear < _DEAR:
            speed = min((self.speeds.of(fastest, kind) for kind in kinds), key=_ROW_S)
            price = family.demand.price(family.rows, speed, workers, now)
            dear = max(dear, _DEAR * price)
        return LIKELY + (SURE - LIKELY) * dear

    def _is_full(self, family: Family, request: Request, now: float) -> bool:
        """Whether too many rows wait already; whoever has less than its share of them is let in anyway."""
        most = self._limits.max_queue_rows
        if family.rows_at(request.priority) + request.rows <= most:
            return False
        share = most / self._shares.active(now)
        return family.rows_of(request.caller, request.priority) + request.rows > share

    def _left(self, request: Request, slots: Sequence[Slot], now: float) -> Sequence[Slot]:
        """``slots`` as they are free once the others had the room that this caller must leave them."""
        horizon_s = min(request.deadline_s - now, self._limits.patience_s)
        reserved_s = self._shares.reserved_s(request.caller, horizon_s, len(slots), now)
        if not reserved_s or not slots:
            return slots
        each_s = reserved_s / len(slots)
        return [slot.later(each_s) for slot in slots]

    def again(self, request: Request, kinds: frozenset[str]) -> None:
        """``request``, which a worker had that died, waits again; what was promised still is."""
        family = self._families[request.model]
        family.add(request, self._due_s(request))
        if request.deadline_s < math.inf and family.able(request):
            self.promises.add(request, plan_variant(family, request, self.speeds, kinds))

    def remove(self, name: str, request_id: int) -> Request | None:
        """Take a request out; None if it does not wait."""
        family = self._families.get(name)
        found = None if family is None else family.remove(request_id)
        if found is None:
            return None
        request, held_s = found
        self.promises.remove(request)
        self._shares.release((request,), (held_s,))
        return request

    def choose(self, family: Family, slots: Sequence[Slot], takers: int, now: float) -> Pick | Wait:
        """The batch of ``family`` that one of the first ``takers`` of ``slots`` begins now.

        What it takes waits no more.
        """
        self.promises.drop_broken(slots, now)
        view = View(now, family, slots, takers, self.promises, self.speeds, self._limits)
        answer = self._policy.choose(view)
        if isinstance(answer, Pick):
            self.promises.take(answer.requests, answer.rest)
            self._shares.release(*family.take(answer.requests))
        return answer

    def spare(self, slots: Sequence[Slot], worker: str, seconds: float) -> bool:
        """Whether ``worker`` may do something else for so long without a promise being broken by it."""
        if not self.promises:
            return True
        starts_s = [slot.later(seconds) if slot.worker == worker else slot for slot in slots]
        late = self.promises.late_s(starts_s)
        return not late or late <= self.promises.late_s(slots)

    def _due_s(self, request: Request) -> float:
        """When a request is to be done: by its deadline, or when patience with it ends."""
        if request.deadline_s < math.inf:
            return request.deadline_s
        return request.arrived_s + request.priority * self._limits.patience_s
