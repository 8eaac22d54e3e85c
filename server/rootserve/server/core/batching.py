"""When a batch of a single variant may be closed, for whom, and how large it may be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from rootserve.server.core.arrangement import Arrangement, Streams, kind_beside
from rootserve.server.core.batch_size import BatchSize, Latency, choose
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.limits import Limits
from rootserve.server.core.queue import Queue, Request
from rootserve.server.core.worker import Worker, Workers


class Place(NamedTuple):
    """Where a batch of a queue can go: to ``worker`` with at most ``max_rows``, if there is one.

    ``passed``: the kinds of workers that have no room for a batch that may be closed, and how large it could
    be. ``wake_s``: when there may be another place without anything else happening.
    """

    worker: Worker | None
    max_rows: int
    passed: tuple[tuple[str, int], ...]
    wake_s: float

    @property
    def may_close(self) -> bool:
        """Whether a batch may be closed for workers of some kind."""
        return self.worker is not None or bool(self.passed)


class Batching:
    """The rules for batches of single variants, of which each has a queue of its own."""

    def __init__(self, limits: Limits, table: LatencyTable, workers: Workers) -> None:
        self._limits = limits
        self._table = table
        self._workers = workers
        self._sizes: dict[tuple[str, str], BatchSize] = {}
        self.arrangement = Arrangement()

    def measured(
        self, model: str, latency: Latency, kind: str, streams: Streams | None = None
    ) -> BatchSize:
        """Batches of ``model`` take so long on workers of ``kind``; gives how large they will be there.

        ``latency`` is of batches alone; ``streams``, how such workers compute them side by side, if they do.
        """
        for rows, seconds in latency:
            self._table.learn(model, rows, seconds, kind)
        streams = streams or Streams()
        self.arrangement.measured(model, kind, streams)
        if streams.images > 1 and latency:
            one_s = latency[0][1] * streams.speed_up
            for rows, seconds in latency:
                self._table.learn(model, rows, max(one_s, seconds), kind_beside(kind))
        size = choose(latency)
        self._sizes[model, kind] = size
        return size

    def full_rows(self, model: str, kind: str) -> int:
        """From how many rows on a batch for a worker of ``kind`` is full."""
        size = self._sizes.get((model, kind))
        most = self._limits.max_batch_rows
        return min(size.rows, most) if size else most

    def must_wait(self, model: str, rows: int) -> bool:
        """Whether ``rows`` of ``model`` wait until a worker is done, whatever the time."""
        if self._limits.lead_s is not None:
            return False
        for worker in self._workers:
            if model in worker.models and (
                not worker.batches
                or rows >= self.full_rows(model, worker.kind)
                or worker.may_join(self.arrangement.streams(model, worker.kind), rows)
            ):
                return False
        return True

    def goes_beside(self, request: Request, rows: int, worker: Worker) -> bool:
        """Whether a batch of ``rows`` whose first is ``request`` is computed beside others on ``worker``.

        What a worker may have died of is computed alone.
        """
        if worker.lanes == 1 or request.attempts > 0:
            return False
        if worker.batches:
            return self.arrangement.streams(request.model, worker.kind) > 1
        return self.arrangement.goes_beside(request.model, worker.kind, rows)

    def closable(self, queue: Queue, kind: str, now: float) -> tuple[int, float]:
        """The most rows of a batch closed now for a worker of ``kind``, or 0 and when one may be closed."""
        head = queue.head
        if head.attempts > 0:
            return head.rows, now
        max_rows = self.full_rows(head.model, kind)
        if queue.rows >= max_rows:
            return max_rows, now
        size = self._sizes.get((head.model, kind))
        if size is not None and not size.waits:
            return max_rows, now
        due_s = queue.oldest_s + self._limits.max_delay_s
        return (max_rows, now) if due_s <= now else (0, due_s)

    def place_for(
        self, queue: Queue, kinds: Iterable[str], now: float, may_join: bool = True
    ) -> Place:
        """Where a batch of ``queue`` goes now; ``may_join``: perhaps beside others."""
        found: Worker | None = None
        found_rows, wake_s = 0, math.inf
        passed: list[tuple[str, int]] = []
        for kind in kinds:
            max_rows, ready_s = self.closable(queue, kind, now)
            full = 0 < max_rows <= queue.rows
            worker, free_s = self.worker_for(queue, kind, full, now, may_join)
            if worker is not None and max_rows > 0:
                # Rather one that is idle than one that would be given a batch ahead.
                if found is None or (found.batches and not worker.batches):
                    found, found_rows = worker, max_rows
                continue
            if max_rows > 0:
                passed.append((kind, max_rows))
            wake_s = min(wake_s, max(ready_s, free_s))
        return Place(found, found_rows, tuple(passed), wake_s)

    def worker_for(
        self, queue: Queue, kind: str, full: bool, now: float, may_join: bool = True
    ) -> tuple[Worker | None, float]:
        """A worker of ``kind`` for a batch of ``queue`` now, or None and when one may be given it.

        ``may_join``: whether it may be computed beside others.
        """
        head = queue.head
        idle: Worker | None = None
        beside: Worker | None = None
        soonest, free_s = None, math.inf
        may_join = may_join and not head.attempts
        streams = self.arrangement.streams(head.model, kind) if may_join else 1
        for worker in self._workers:
            if head.model not in worker.models or worker.hung or worker.kind != kind:
                continue
            if not worker.batches:
                if idle is None or worker.last_given_s < idle.last_given_s:
                    idle = worker
            elif worker.may_join(streams, queue.rows):
                if beside is None or len(worker.batches) < len(beside.batches):
                    beside = worker
            elif worker.may_take_ahead(self._limits.batches_ahead):
                at_s = now if full else self._workers.ahead_s(worker, now)
                if at_s < free_s:
                    soonest, free_s = worker, at_s
        if idle is not None or beside is not None:
            return idle or beside, now
        return (soonest if free_s <= now else None), free_s

    def in_time(self, queue: Queue, max_rows: int, worker: Worker, now: float) -> list[Request]:
        """The first requests that fit into ``max_rows`` and are expected to be done by their deadlines.

        Under overload the oldest requests are those that have least time left: a full batch would be
        late for them and for those behind. One that would be late even alone is passed over, and
        expires where it waits.
        """
        taken: list[Request] = []
        head = queue.head
        beside = self.goes_beside(head, min(max_rows, queue.rows), worker)
        kind = kind_beside(worker.kind) if beside else worker.kind
        if beside:
            # What is answered early comes again while the rest is computed: none is more than half.
            streams = self.arrangement.streams(head.model, worker.kind)
            has = sum(batch.rows for batch in worker.batches.values())
            max_rows = min(max_rows, max(4 * streams, -(-(queue.rows + has) // 2)))
        start_s = self._start_s(worker, now)
        rows, soonest_s = 0, math.inf
        joins = worker.shares
        for request in queue:
            if taken and rows + request.rows > max_rows:
                break
            if request.attempts > 0 and (taken or joins):
                break
            limit_s = min(soonest_s, request.deadline_s)
            if limit_s < math.inf:
                expected_s = self._table.predict(request.model, rows + request.rows, kind) or 0.0
                if start_s + expected_s > limit_s:
                    if taken:
                        break
                    continue
            taken.append(request)
            rows += request.rows
            soonest_s = limit_s
            if request.attempts > 0:
                break
        return taken

    def _start_s(self, worker: Worker, now: float) -> float:
        """When ``worker`` is expected to begin what it is given now.

        At once beside others: what that takes is what such batches took, and they were as busy.
        """
        if worker.shares or not worker.batches:
            return now
        return max(now, self._workers.end_s(worker) or now)
