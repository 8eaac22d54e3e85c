"""Policies of others, after their papers, for comparison: each chooses (variant, batch) in its own way.

All take the earliest deadlines first and pass over what they cannot make, which is then dropped: none of them
refuses. All keep floors and sets of allowed variants, which the papers do not know: the head of the queue
says which variants there are, and others share its batch if the one chosen may compute them.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from rootserve.server.core.family import Member, may_compute
from rootserve.server.core.policy import Pick, Policy, View, Wait
from rootserve.server.core.queue import Request
from rootserve.server.core.worker import Slot

_SLACKFIT_BUCKETS = 32
"""As many as there may be rows in a batch: with fewer it is coarser, with more nothing changes here."""

_TABLE_CHANGES = 64
"""After so many batches that the table has learned from, what was derived of it is derived anew."""

_UNKNOWN_S = 1e6


class _Shot(NamedTuple):
    """A batch of up to so many rows, with that variant."""

    member: Member
    rows: int


class _Able(NamedTuple):
    """The variants that may compute a request on a kind of worker, and what follows of the table.

    `fastest` has the fastest full batches; `pareto` are those that no other beats in accuracy and the time of
    a full batch, most accurate first; `least_s` is what one row takes at least; `buckets` are SlackFit's.
    """

    fastest: Member
    pareto: Sequence[Member]
    least_s: float
    buckets: Sequence[tuple[float, _Shot]]


class _Turn(NamedTuple):
    """A worker that can be given a batch, and the request that heads it.

    `waiting`: rows that wait, up to a batch. `slack_s`: from the begin of the batch to the head's deadline.
    """

    view: View
    slot: Slot
    head: Request
    able: _Able
    waiting: int
    slack_s: float

    def fits(self, member: Member, rows: int) -> bool:
        """Whether a batch is done by the head's deadline."""
        return _seconds(self.view, self.slot, member, rows) <= self.slack_s

    def largest(self, member: Member) -> _Shot | None:
        """The largest batch of what waits that fits; None if the head does not even fit alone."""
        for rows in range(self.waiting, self.head.rows - 1, -1):
            if self.fits(member, rows):
                return _Shot(member, rows)
        return None


Rule = Callable[[_Turn], _Shot | None]
"""What to compute by the head's deadline; None if nothing makes it."""


class Rival:
    """A policy that follows a rule, batch by batch; with `only`, it knows no other variant."""

    def __init__(self, rule: Rule, only: str | None = None) -> None:
        self._rule = rule
        self._only = only
        self._able: dict[tuple[str, float, frozenset[str]], _Able | None] = {}
        self._age = -1

    def choose(self, view: View) -> Pick | Wait:
        """See `Policy`."""
        age = view.table.version // _TABLE_CHANGES
        if age != self._age:
            self._able.clear()
            self._age = age
        waiting = min(view.max_rows, sum(request.rows for request in view.requests))
        for slot in view.slots[: view.takers]:
            start_s = max(view.now, slot.free_s)
            for place, head in enumerate(view.requests):
                able = self._able_for(view, slot, head)
                slack_s = view.due[place] - start_s
                if able is None or slack_s < able.least_s:
                    continue
                turn = _Turn(view, slot, head, able, max(waiting, head.rows), slack_s)
                shot = self._rule(turn)
                if shot is not None:
                    return _filled(turn, shot, place)
        return Wait(math.inf)

    def _able_for(self, view: View, slot: Slot, head: Request) -> _Able | None:
        """What may compute the head there; None if nothing may."""
        key = (slot.kind, head.floor, head.allowed)
        if key not in self._able:
            members = [
                member
                for member in view.members
                if member.variant in slot.models
                and may_compute(head, member)
                and self._only in {None, member.variant}
            ]
            self._able[key] = _derived(view, slot, members) if members else None
        return self._able[key]


def _derived(view: View, slot: Slot, members: Sequence[Member]) -> _Able:
    full_s = {member: _seconds(view, slot, member, view.max_rows) for member in members}
    pareto: list[Member] = []
    for member in sorted(members, key=lambda each: (-each.accuracy, full_s[each])):
        if not pareto or full_s[member] < full_s[pareto[-1]]:
            pareto.append(member)
    return _Able(
        min(members, key=lambda member: full_s[member]),
        pareto,
        min(_seconds(view, slot, member, 1) for member in members),
        _buckets(view, slot, pareto),
    )


def _buckets(view: View, slot: Slot, members: Sequence[Member]) -> list[tuple[float, _Shot]]:
    """SlackFit's: one shot per bucket that is not empty, fastest first."""
    shots = [
        (_seconds(view, slot, member, rows), _Shot(member, rows))
        for member in members
        for rows in range(1, view.max_rows + 1)
    ]
    low = min(seconds for seconds, _ in shots)
    width = max(max(seconds for seconds, _ in shots) - low, 1e-9) / _SLACKFIT_BUCKETS
    buckets: dict[int, tuple[float, _Shot]] = {}
    for seconds, shot in shots:
        place = min(_SLACKFIT_BUCKETS - 1, int((seconds - low) / width))
        kept = buckets.get(place)
        if kept is None or _worth(shot) > _worth(kept[1]):
            buckets[place] = (seconds, shot)
    return sorted(buckets.values(), key=lambda each: each[0])


def _worth(shot: _Shot) -> tuple[int, float]:
    return shot.rows, shot.member.accuracy


def _seconds(view: View, slot: Slot, member: Member, rows: int) -> float:
    """What a batch takes at most; much, while nothing is known."""
    found = view.table.bound(member.variant, rows, slot.kind)
    return _UNKNOWN_S if found is None else found


def _filled(turn: _Turn, shot: _Shot, place: int) -> Pick:
    """The head and those behind it, earliest deadline first, as far as they fit and may be computed so."""
    head = turn.head
    taken, rows = [head], head.rows
    for request in turn.view.requests[place + 1 :] if not head.attempts else ():
        if rows + request.rows > shot.rows:
            break
        if not request.attempts and may_compute(request, shot.member):
            taken.append(request)
            rows += request.rows
    return Pick(shot.member.variant, tuple(taken), turn.slot.worker)


def fastest(turn: _Turn) -> _Shot | None:
    """The fastest variant above the floor, in the largest batches that the head has time for (INFaaS)."""
    return turn.largest(turn.able.fastest)


def max_acc(turn: _Turn) -> _Shot | None:
    """The most accurate variant that makes it alone, then the largest batch of it (SuperServe's rival)."""
    for member in turn.able.pareto:
        if (shot := turn.largest(member)) is not None:
            return shot
    return None


def max_batch(turn: _Turn) -> _Shot | None:
    """The largest batch of the fastest variant, then the most accurate at that size (SuperServe's rival)."""
    least = turn.largest(turn.able.fastest)
    if least is None:
        return None
    able = (member for member in turn.able.pareto if turn.fits(member, least.rows))
    return _Shot(next(able, least.member), least.rows)


def greedy(turn: _Turn) -> _Shot | None:
    """The most accurate variant that computes all that waits by the first deadline (RAMSIS' rival)."""
    for member in turn.able.pareto:
        if turn.fits(member, turn.waiting):
            return _Shot(member, turn.waiting)
    return turn.largest(turn.able.fastest)


def slackfit(turn: _Turn) -> _Shot | None:
    """The batch of the bucket of latencies that is nearest below the slack of the head (SuperServe).

    The latencies from the fastest variant with one row to the most accurate with the most are cut into equal
    buckets; each keeps the batch with the most rows, and of those the most accurate. The paper cuts them
    once; here they follow the table, as all other policies do.
    """
    found = None
    for seconds, shot in turn.able.buckets:
        if seconds > turn.slack_s:
            break
        if shot.rows >= turn.head.rows:
            found = shot
    return found


_RULES: dict[str, Rule] = {
    "slackfit": slackfit,
    "max-acc": max_acc,
    "max-batch": max_batch,
    "greedy": greedy,
    "min-accuracy": fastest,
}


def rivals(variants: Sequence[str]) -> dict[str, Callable[[], Policy]]:
    """How to make each of them, by name; last each variant alone, in the largest batches in time."""
    made: dict[str, Callable[[], Policy]] = {
        name: partial(Rival, rule) for name, rule in _RULES.items()
    }
    return made | {f"static {name}": partial(Rival, fastest, name) for name in variants}
