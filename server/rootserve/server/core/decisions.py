"""What the scheduler decides: plain data, told to whoever carries it out."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from rootserve.server.core.family import Member, may_compute
from rootserve.server.core.latency import Plain
from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Cost, cost_of


class Candidate(NamedTuple):
    """A batch that could have been: ``rows`` of ``variant``, done at ``finish_s``.

    ``verdict`` says what spoke for it or against it.
    """

    variant: str
    rows: int
    finish_s: float
    verdict: str


class Others(NamedTuple):
    """Variants of which nothing was told when a batch was chosen, and what is needed to tell it later.

    ``plains``: what batches like it take, for each of ``members``, at the ``pace`` of its worker. ``now``:
    when it was chosen. ``models``: what its worker has, and ``head``: its first request. ``less``: those
    whose accuracy is worth less.
    """

    members: Sequence[Member]
    plains: Sequence[Plain]
    pace: tuple[float, float]
    now: float
    models: frozenset[str]
    head: Request
    less: Sequence[Member]


class Choice(NamedTuple):
    """Why a batch of a family is what it is.

    ``slack_s``: from its start to the first deadline in it. ``waiting``: how many requests of the family
    waited. ``rate``: rows per second that were expected to come. ``tried``: what was thought of, in this
    order; ``reason``: the rule that decided.
    """

    slack_s: float
    waiting: int
    rate: float
    tried: tuple[Candidate, ...]
    reason: str
    others: Others | None = None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All batches that could have been, those that were tried first."""
        others = self.others
        if others is None:
            return self.tried
        rows = self.tried[-1].rows
        known = {each.variant for each in self.tried}
        more = [
            Candidate(
                member.variant,
                rows,
                others.now + cost_of(plain, *others.pace).within_s(),
                "worth less" if member in others.less else "too slow",
            )
            for member, plain in zip(others.members, others.plains, strict=True)
            if member.variant not in known
            and member.variant in others.models
            and may_compute(others.head, member)
        ]
        return (*self.tried, *more)


class Batch(NamedTuple):
    """Requests that one worker computes together, in this order, with the variant ``model``.

    The requests of a family's batch keep the name of the family as their ``model``.
    """

    id: int
    model: str
    worker: str
    requests: tuple[Request, ...]
    rows: int
    """Of all its requests."""
    formed_s: float
    predicted_s: float | None = None
    """How long its computation takes at most, but for one in a hundred; None while nothing is known."""
    choice: Choice | None = None
    """What a family's batch was chosen from, where :attr:`Limits.explain` is on."""
    beside: bool = False
    """Whether it shares its worker with others that are computed side by side with it."""
    cost: Cost | None = None
    """What a family's batch like it takes in the mean, and how much longer; None of a single variant's."""


class Declined(Enum):
    """Why :meth:`Scheduler.offer` does not take a request."""

    TOO_MANY_ROWS = "more rows than a batch may have"
    TOO_LATE = "its deadline has passed"
    QUEUE_FULL = "too many rows wait already"
    INFEASIBLE = "its deadline cannot be promised"
    UNSERVED = "no variant that is served may compute it"


class Infeasible(NamedTuple):
    """What could have been promised instead.

    ``earliest_s``: when the request would have been done, on the scheduler's clock; infinite if never.
    ``floor``: the highest accuracy that could have been had in time, None if there is none. ``retry_s``:
    after so many seconds the same request has a chance.
    """

    earliest_s: float
    floor: float | None
    retry_s: float


class Offered(NamedTuple):
    """What became of a request that was offered; ``poll``: it may change what is to be decided now."""

    declined: Declined | None
    poll: bool
    infeasible: Infeasible | None = None
    """With :attr:`Declined.INFEASIBLE`."""


class Decisions(NamedTuple):
    """What :meth:`Scheduler.poll` decided; ``wake_s`` is when to ask again at the latest."""

    dispatches: tuple[Batch, ...]
    expired: tuple[Request, ...]
    hung: tuple[str, ...]
    """Workers whose batch hangs, each told once; what they had comes back by worker_lost."""
    wake_s: float
