"""Counts and sums per model, as the ModelStatistics RPC reports them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from rootserve.server.core.scheduler import Batch
from rootserve.server.observers.events import Observer, Refusal
from rootserve.server.pending import Pending, Report, Timeline


@dataclass(slots=True)
class Total:
    """How often something happened and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count once more."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class ModelStatistics:
    """What happened to one model's requests since the server started."""

    rows: int = 0
    batches: int = 0
    last_answer_ms: int = 0
    """Unix time of the last answer."""
    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    hand_over: Total = field(default_factory=Total)
    compute: Total = field(default_factory=Total)
    rest: Total = field(default_factory=Total)
    by_batch_rows: dict[int, Total] = field(default_factory=lambda: defaultdict(Total))


class Statistics(Observer):
    """Keeps :class:`ModelStatistics` for every model that had a request.

    One for a family counts for the family, and for the variant that computed it: that one was computed.
    """

    def __init__(self) -> None:
        self.by_model: dict[str, ModelStatistics] = defaultdict(ModelStatistics)

    @override
    def answered(self, pending: Pending, timeline: Timeline) -> None:
        self._count(pending.request.model, pending.request.rows, timeline)
        if timeline.variant and timeline.variant != pending.request.model:
            self._count(timeline.variant, pending.request.rows, timeline)

    def _count(self, model: str, rows: int, timeline: Timeline) -> None:
        statistics = self.by_model[model]
        statistics.rows += rows
        statistics.last_answer_ms = time.time_ns() // 1_000_000
        statistics.success.add(timeline.total_ns)
        statistics.queue.add(timeline.queue_ns)
        statistics.hand_over.add(timeline.batch_wait_ns)
        statistics.compute.add(timeline.compute_ns)
        spent_ns = timeline.queue_ns + timeline.batch_wait_ns + timeline.compute_ns
        statistics.rest.add(timeline.total_ns - spent_ns)

    @override
    def refused(self, refusal: Refusal) -> None:
        if refusal.model:
            self.by_model[refusal.model].fail.add(int(refusal.seconds * 1e9))

    @override
    def batch_ended(self, batch: Batch, report: Report, requests: Sequence[Pending | None]) -> None:
        if report.began_ns:
            for model in {batch.model, batch.requests[0].model}:
                statistics = self.by_model[model]
                statistics.batches += 1
                statistics.by_batch_rows[batch.rows].add(report.ended_ns - report.began_ns)
