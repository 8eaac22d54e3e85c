"""Which variant computes which requests of a family, and where: what a policy sees, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from rootserve.server.core.decisions import Choice
from rootserve.server.core.demand import Demand
from rootserve.server.core.family import Member
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.promises import Promises, Rest
from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Speeds
from rootserve.server.core.worker import Slot


@dataclass(slots=True)
class View:
    """What a policy may know when it decides; it must not change anything of it.

    ``requests``: those that wait, and ``due``, when each is to be done, in this order: its deadline, or
    what stands for one. ``rows``: of all of them. ``members``: most accurate first, and
    ``variants`` their names. ``slots``: all workers,
    those that may be given a batch now first (``takers`` of them). ``demand``: what has come lately.
    ``promises``: to all families' requests that wait; each is to be kept.
    """

    now: float
    family: str
    requests: Sequence[Request]
    due: Sequence[float]
    rows: int
    members: Sequence[Member]
    variants: tuple[str, ...]
    table: LatencyTable
    speeds: Speeds
    slots: Sequence[Slot]
    takers: int
    demand: Demand
    promises: Promises
    max_rows: int
    explain: bool = False


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
