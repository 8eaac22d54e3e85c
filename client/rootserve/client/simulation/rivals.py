"""Policies of others, after their papers, for comparison: each chooses (variant, batch) in its own way.

All take the earliest deadlines first and pass over what they cannot make, which is then dropped: none of them
refuses. All keep floors and sets of allowed variants, which the papers do not know: the head of the queue
says which variants there are, and others share its batch if the one chosen may compute them.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from rootserve.server.core.family import Member
from rootserve.server.core.policy import Pick, Policy, Slot, View, Wait, may_compute
from rootserve.server.core.queue import Request

_SLACKFIT_BUCKETS = 32
"""As many as there may be rows in a batch: with fewer it is coarser, with more nothing changes here."""

_TABLE_CHANGES = 256
"""After so many batches that were learned from, SlackFit's buckets are cut anew; the paper's are cut once."""


class _Shot(NamedTuple):
    """A batch of up to so many rows, with that variant."""

    member: Member
    rows: int


class _Turn(NamedTuple):
    """A worker that can be given a batch, and the request that heads it: what is known, and what it would take.

    `able`: the variants that may compute the head, most accurate first. `waiting`: rows that wait, up to a
    batch. `slack_s`: from the begin of the batch to the head's deadline.
    """

    view: View
    slot: Slot
    head: Request
    able: Sequence[Member]
    waiting: int
    slack_s: float

    def seconds(self, member: Member, rows: int) -> float:
        """What a batch takes at most; infinity while nothing is known."""
        found = self.view.table.bound(member.variant, rows, self.slot.kind)
        return math.inf if found is None else found

    def fits(self, member: Member, rows: int) -> bool:
        """Whether a batch is done by the head's deadline."""
        return self.seconds(member, rows) <= self.slack_s

    def largest(self, member: Member) -> _Shot | None:
        """The largest batch of what waits that fits; None if the head does not even fit alone."""
        for rows in range(self.waiting, self.head.rows - 1, -1):
            if self.fits(member, rows):
                return _Shot(member, rows)
        return None

    def fastest(self) -> Member:
        """The variant whose full batches are fastest."""
        return min(self.able, key=lambda member: self.seconds(member, self.view.max_rows))

    def pareto(self) -> list[Member]:
        """Those that none beats in both accuracy and time of a full batch; most accurate first."""
        found: list[Member] = []
        soonest_s = math.inf
        for member in sorted(self.able, key=lambda each: -each.accuracy):
            seconds = self.seconds(member, self.view.max_rows)
            if seconds < soonest_s:
                found.append(member)
                soonest_s = seconds
        return found


class _Rule(Protocol):
    """What to compute by the head's deadline; None if nothing makes it."""

    def __call__(self, turn: _Turn) -> _Shot | None:
        """One shot."""


class Rival:
    """A policy that follows a rule, batch by batch."""

    def __init__(self, rule: _Rule) -> None:
        self._rule = rule

    def choose(self, view: View) -> Pick | Wait:
        """See `Policy`."""
        waiting = min(view.max_rows, sum(request.rows for request in view.requests))
        for slot in view.slots[: view.takers]:
            start_s = max(view.now, slot.free_s)
            for head in view.requests:
                able = [
                    member
                    for member in view.members
                    if member.variant in slot.models and may_compute(head, member)
                ]
                most = max(waiting, head.rows)
                turn = _Turn(view, slot, head, able, most, head.deadline_s - start_s)
                shot = self._rule(turn) if able else None
                if shot is not None:
                    return _filled(turn, shot)
        return Wait(math.inf)


def _filled(turn: _Turn, shot: _Shot) -> Pick:
    """The head and those behind it, earliest deadline first, as far as they fit and may be computed so."""
    head = turn.head
    taken, rows = [head], head.rows
    for request in turn.view.requests if not head.attempts else ():
        if request is head or request.attempts or request.deadline_s < head.deadline_s:
            continue
        if rows + request.rows > shot.rows:
            break
        if may_compute(request, shot.member):
            taken.append(request)
            rows += request.rows
    return Pick(shot.member.variant, tuple(taken), turn.slot.worker)


def static(variant: str, turn: _Turn) -> _Shot | None:
    """One variant alone, in the largest batches that the head has time for."""
    found = next((member for member in turn.able if member.variant == variant), None)
    return turn.largest(found) if found else None


def min_accuracy(turn: _Turn) -> _Shot | None:
    """The fastest variant above the floor, in the largest batches that the head has time for (INFaaS)."""
    return turn.largest(turn.fastest())


def max_acc(turn: _Turn) -> _Shot | None:
    """The most accurate variant that makes it alone, then the largest batch of it (SuperServe's rival)."""
    for member in turn.pareto():
        if (shot := turn.largest(member)) is not None:
            return shot
    return None


def max_batch(turn: _Turn) -> _Shot | None:
    """The largest batch of the fastest variant, then the most accurate at that size (SuperServe's rival)."""
    least = turn.largest(turn.fastest())
    if least is None:
        return None
    able = (member for member in turn.pareto() if turn.fits(member, least.rows))
    return _Shot(next(able, least.member), least.rows)


def greedy(turn: _Turn) -> _Shot | None:
    """The most accurate variant that computes all that waits by the first deadline (RAMSIS' rival)."""
    for member in turn.pareto():
        if turn.fits(member, turn.waiting):
            return _Shot(member, turn.waiting)
    return turn.largest(turn.fastest())


class SlackFit:
    """The batch of the bucket of latencies that is nearest below the slack of the head (SuperServe).

    The latencies from the fastest variant with one row to the most accurate with the most are cut into equal
    buckets; each keeps the batch with the most rows, and of those the most accurate.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], list[tuple[float, _Shot]]] = {}

    def __call__(self, turn: _Turn) -> _Shot | None:
        """One shot."""
        found = None
        for seconds, shot in self._buckets(turn):
            if seconds > turn.slack_s:
                break
            if shot.rows >= turn.head.rows:
                found = shot
        return found

    def _buckets(self, turn: _Turn) -> list[tuple[float, _Shot]]:
        """One shot per bucket that is not empty, fastest first."""
        age = turn.view.table.version // _TABLE_CHANGES
        key = (turn.slot.kind, tuple(member.variant for member in turn.able), age)
        if key not in self._made:
            if len(self._made) > _TABLE_CHANGES:
                self._made.clear()
            self._made[key] = _cut(turn)
        return self._made[key]


def _cut(turn: _Turn) -> list[tuple[float, _Shot]]:
    shots = [
        (turn.seconds(member, rows), _Shot(member, rows))
        for member in turn.pareto()
        for rows in range(1, turn.view.max_rows + 1)
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


def rivals(variants: Sequence[str]) -> dict[str, Callable[[], Policy]]:
    """How to make each of them, by name; the static variants last."""
    rules: dict[str, Callable[[], _Rule]] = {
        "slackfit": SlackFit,
        "max-acc": lambda: max_acc,
        "max-batch": lambda: max_batch,
        "greedy": lambda: greedy,
        "min-accuracy": lambda: min_accuracy,
    }
    for variant in variants:
        rules[f"static {variant}"] = partial(partial, static, variant)
    return {name: partial(_made, rule) for name, rule in rules.items()}


def _made(rule: Callable[[], _Rule]) -> Policy:
    return Rival(rule())
