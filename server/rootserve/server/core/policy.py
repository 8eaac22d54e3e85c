"""Which variant computes which requests of a family, and where: what a policy sees, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from rootserve.server.core.decisions import Choice
from rootserve.server.core.family import Member, may_compute
from rootserve.server.core.latency import FILES, PIXELS, LatencyTable
from rootserve.server.core.queue import Request


class Slot(NamedTuple):
    """A worker: when it is expected to be through with its batches, and whether it has none.

    ``last``: the variant that it was given last, or nothing.
    """

    worker: str
    kind: str
    models: frozenset[str]
    free_s: float
    idle: bool
    last: str = ""


class View(NamedTuple):
    """What a policy may know when it decides; it must not change anything of it.

    ``requests``: those that wait, and ``due``, when each is to be done, in this order: its deadline, or
    what stands for one. ``members``: most accurate first. ``slots``: all workers, those that may be given a
    batch now first (``takers`` of them). ``rate``: rows per second that have come lately.
    """

    now: float
    family: str
    requests: Sequence[Request]
    due: Sequence[float]
    members: Sequence[Member]
    table: LatencyTable
    slots: Sequence[Slot]
    takers: int
    rate: float
    max_rows: int
    explain: bool = False


class Pick(NamedTuple):
    """Have ``worker`` compute ``requests`` with ``variant``."""

    variant: str
    requests: tuple[Request, ...]
    worker: str
    choice: Choice | None = None


class Wait(NamedTuple):
    """Give nothing to anybody until ``until_s``, or until something happens."""

    until_s: float


class Policy(Protocol):
    """Chooses batches of families."""

    def choose(self, view: View) -> Pick | Wait:
        """What to do with ``view.requests``, of which there is at least one, as ``view.takers``."""
        ...


def form_of(requests: Sequence[Request]) -> str:
    """The form in which a batch of ``requests`` comes: files, if any does."""
    return FILES if any(request.files for request in requests) else PIXELS


class FastestFirst:
    """The earliest deadline first, with the fastest variant that all of a batch may be computed by."""

    def choose(self, view: View) -> Pick | Wait:
        """See :class:`Policy`."""
        for slot in view.slots[: view.takers]:
            for head in view.requests:
                able = [
                    member
                    for member in view.members
                    if member.variant in slot.models and may_compute(head, member)
                ]
                if able:
                    return self._pick(view, slot, head, able)
        return Wait(float("inf"))

    def _pick(self, view: View, slot: Slot, head: Request, able: list[Member]) -> Pick:
        def seconds(member: Member) -> float:
            return view.table.bound(member.variant, view.max_rows, slot.kind) or 0.0

        member = min(able, key=seconds)
        taken, rows = [head], head.rows
        for request in view.requests:
            if head.attempts:
                break
            if request is head or request.attempts or not may_compute(request, member):
                continue
            if rows + request.rows > view.max_rows:
                break
            taken.append(request)
            rows += request.rows
        return Pick(member.variant, tuple(taken), slot.worker)
