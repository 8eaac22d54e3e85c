"""Which variant computes which requests of a family, and where: what a policy sees, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, final

from rootserve.server.core.decisions import Choice
from rootserve.server.core.family import Family, Member
from rootserve.server.core.limits import Limits
from rootserve.server.core.promises import Promises, Rest
from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Speeds
from rootserve.server.core.worker import Slot


@final
class View:
    """What a policy may know when it decides; it must not change anything of it.

    ``requests``: those that wait, and ``due``, when each is to be done, in this order: its deadline, or
    what stands for one. ``rows``: of all of them. ``members``: most accurate first, and
    ``variants`` their names. ``slots``: all workers, those that may be given a batch now first (``takers``
    of them). ``demand``: what has come lately. ``promises``: to all families' requests that wait; each is to
    be kept.
    """

    __slots__ = (
        "demand",
        "due",
        "explain",
        "family",
        "max_rows",
        "members",
        "now",
        "promises",
        "requests",
        "rows",
        "slots",
        "speeds",
        "table",
        "takers",
        "variants",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what there is to be seen
        self,
        now: float,
        family: Family,
        slots: Sequence[Slot],
        takers: int,
        promises: Promises,
        speeds: Speeds,
        limits: Limits,
    ) -> None:
        self.now = now
        self.family = family.name
        self.requests: Sequence[Request] = family.requests
        self.due: Sequence[float] = family.due
        self.rows = family.rows
        self.members: Sequence[Member] = family.members
        self.variants = family.variants
        self.demand = family.demand
        self.slots, self.takers = slots, takers
        self.promises = promises
        self.speeds, self.table = speeds, speeds.table
        self.max_rows, self.explain = limits.max_batch_rows, limits.explain


class Pick(NamedTuple):
    """Have ``worker`` compute ``requests`` with ``variant``."""

    variant: str
    requests: tuple[Request, ...]
    worker: str
    choice: Choice | None = None
    rest: Rest | None = None
    """What showed that all promises to others than ``requests`` can be kept, if something did."""


class Wait(NamedTuple):
    """Give nothing to anybody until ``until_s``, or until something happens."""

    until_s: float


class Policy(Protocol):
    """Chooses batches of families."""

    def choose(self, view: View) -> Pick | Wait:
        """What to do with ``view.requests``, of which there is at least one, as ``view.takers``."""
        ...
