"""Keeps the last requests with all that decided on them, where they are to be explained."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from typing_extensions import override

from rootserve.server.core.decisions import Batch
from rootserve.server.core.queue import Request
from rootserve.server.observers.events import Observer, Refusal
from rootserve.server.pending import InBatch, Pending, Report, Story, Timeline
from rootserve.server.refusals import Promise

OK = "ok"
REFUSED = "refused"
"""As an outcome that is asked for: any but OK."""


class Explained(NamedTuple):
    """A request that ended: ``ended_ns`` is Unix time, ``total_ns`` from its arrival."""

    request_id: str
    model: str
    outcome: str
    message: str
    ended_ns: int
    total_ns: int
    story: Story | None = None
    """None for a request that was refused before it was offered to the scheduler."""
    timeline: Timeline | None = None
    promise: Promise | None = None

    @property
    def request(self) -> Request | None:
        """What came, and how many workers died of it."""
        story = self.story
        if story is None:
            return None
        if story.batch is not None:
            for request in story.batch.batch.requests:
                if request.id == story.request.id:
                    return story.request._replace(attempts=request.attempts)
        return story.request


class Explainer(Observer):
    """A ring of the last ``size`` requests that ended, answered or refused."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._ring: deque[Explained] = deque(maxlen=size)

    def find(
        self, request_id: str = "", model: str = "", outcome: str = "", last: int = 1
    ) -> list[Explained]:
        """The ``last`` of those that have this id, model and outcome; what is "" chooses from all."""
        return list(islice(self._found(request_id, model, outcome), last))

    def _found(self, request_id: str, model: str, outcome: str) -> Iterator[Explained]:
        for one in reversed(self._ring):
            if request_id not in ("", one.request_id) or model not in ("", one.model):
                continue
            if outcome in ("", one.outcome) or (outcome == REFUSED and one.outcome != OK):
                yield one

    @override
    def batch_ended(self, batch: Batch, report: Report, requests: Sequence[Pending | None]) -> None:
        ids = tuple(pending.asked.id if pending else "" for pending in requests)
        shared = InBatch(batch, report, ids)
        for pending in requests:
            if pending is not None and pending.story is not None:
                pending.story.batch = shared

    @override
    def answered(self, pending: Pending, timeline: Timeline) -> None:
        self._ring.append(
            Explained(
                pending.asked.id,
                pending.request.model,
                OK,
                "",
                time.time_ns(),
                timeline.total_ns,
                pending.story,
                timeline,
            )
        )

    @override
    def refused(self, refusal: Refusal) -> None:
        if not refusal.model:
            return  # no request for a model that is known
        self._ring.append(
            Explained(
                refusal.request_id,
                refusal.model,
                refusal.reason.value,
                refusal.message,
                time.time_ns(),
                round(refusal.seconds * 1e9),
                refusal.story,
                promise=refusal.promise,
            )
        )
