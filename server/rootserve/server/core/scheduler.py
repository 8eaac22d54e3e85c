"""The queue and the batcher: a pure state machine that is told what happened and when.

Requests wait per model, by priority and then in order of arrival (:mod:`rootserve.server.core.queue`). A
batch is closed late, only when a worker can take it: at once when it is full, else when its oldest request
has waited the maximal delay. From how many rows on it is full was measured when the model was loaded
(:mod:`rootserve.server.core.batch_size`). A busy worker may be given one batch ahead, which hides the
hand-over, when that batch is full or, where asked for, the running one is about to end. A batch is no larger
than its deadlines allow. Limits count rows (images), not requests.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from rootserve.server.core.batch_size import BatchSize, Latency, choose
from rootserve.server.core.durations import Durations
from rootserve.server.core.queue import Queue, Request


@dataclass(frozen=True, slots=True)
class Limits:
    """What the scheduler must keep to; times in seconds."""

    max_batch_rows: int = 32
    max_delay_s: float = 0.0
    max_queue_rows: int = 1024
    """Rows that may wait per model and priority."""
    priority_age_s: float = math.inf
    """A request goes before those of the next higher priority that came so much later."""
    batches_ahead: int = 1
    """Batches a worker may hold besides the one it computes."""
    lead_s: float | None = 0.002
    """How long before the end of a batch one that is not full may be handed over; None: not at all."""
    max_attempts: int = 2
    """How often a request is computed when workers die of it or beside it."""
    hang_s: float = 10.0
    """A batch that takes longer, and far longer than expected, hangs."""
    hang_factor: float = 20.0
    """How many times its expected duration a batch must have taken to hang."""


class Batch(NamedTuple):
    """Requests of one model that are computed together, in this order, by one worker."""

    id: int
    model: str
    worker: str
    requests: tuple[Request, ...]
    rows: int
    """Of all its requests."""
    formed_s: float


class Declined(Enum):
    """Why :meth:`Scheduler.offer` does not take a request."""

    TOO_MANY_ROWS = "more rows than a batch may have"
    TOO_LATE = "its deadline has passed"
    QUEUE_FULL = "too many rows wait already"


class Offered(NamedTuple):
    """What became of a request that was offered; ``poll``: it may change what is to be decided now."""

    declined: Declined | None
    poll: bool


_TO_POLL = Offered(None, poll=True)
_TO_WAIT = Offered(None, poll=False)
_DECLINED = {declined: Offered(declined, poll=False) for declined in Declined}


class Decisions(NamedTuple):
    """What :meth:`Scheduler.poll` decided; ``wake_s`` is when to ask again at the latest."""

    dispatches: tuple[Batch, ...]
    expired: tuple[Request, ...]
    hung: tuple[str, ...]
    """Workers whose batch hangs, each told once; what they had comes back by worker_lost."""
    wake_s: float


@dataclass(slots=True)
class _Worker:
    """A worker that can take batches. Those of one ``kind`` are equally fast.

    ``began_s``: since when it computes its first batch; ``hangs_s``: when that one counts as hanging.
    """

    name: str
    models: frozenset[str]
    kind: str
    batches: OrderedDict[int, Batch] = field(default_factory=OrderedDict)
    began_s: float = 0.0
    hangs_s: float = math.inf
    last_given_s: float = -math.inf
    hung: bool = False


class Scheduler:
    """Decides which requests are computed when, together with which, and where.

    Every method is told the time ``now`` in seconds, which must not go back. Every request that was
    taken by :meth:`offer` leaves exactly once: in a batch that is done, in ``expired``, by
    :meth:`cancel`, or as lost from :meth:`worker_lost`.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.durations = Durations()
        self._queues: dict[str, Queue] = {}
        self._workers: dict[str, _Worker] = {}
        self._deadlines: list[tuple[float, int, str]] = []
        self._abandoned: set[int] = set()
        self._sizes: dict[tuple[str, str], BatchSize] = {}
        self._kinds: tuple[str, ...] = ()
        self._next_batch = 1
        self._wake_s = math.inf
        self._poll_due = False

    def model_measured(self, model: str, latency: Latency, kind: str = "") -> BatchSize:
        """Batches of ``model`` take so long on workers of ``kind``; gives how large they will be there."""
        for rows, seconds in latency:
            self.durations.learn(model, rows, seconds, kind)
        size = choose(latency)
        self._sizes[model, kind] = size
        return size

    def offer(self, request: Request, now: float) -> Offered:
        """Take ``request`` into its queue, or say why not.

        Whoever is told to poll does so before long: until then it is not told again.
        """
        if request.rows > self.limits.max_batch_rows:
            return _DECLINED[Declined.TOO_MANY_ROWS]
        if request.deadline_s <= now:
            return _DECLINED[Declined.TOO_LATE]
        queue = self._queues.get(request.model)
        if queue is None:
            queue = self._queues[request.model] = Queue(self.limits.priority_age_s)
        if queue.rows_at(request.priority) + request.rows > self.limits.max_queue_rows:
            return _DECLINED[Declined.QUEUE_FULL]
        queue.append(request)
        if request.deadline_s < math.inf:
            heapq.heappush(self._deadlines, (request.deadline_s, request.id, request.model))
        if self._poll_due or (
            request.deadline_s >= self._wake_s and self._must_wait(request.model)
        ):
            return _TO_WAIT
        self._poll_due = True
        return _TO_POLL

    def cancel(self, request: Request) -> bool:
        """Forget ``request``; if a worker has it already, its answer is for nobody.

        Returns whether it was still waiting.
        """
        queue = self._queues.get(request.model)
        if queue is not None and queue.remove(request.id) is not None:
            return True
        if any(
            request.id == other.id
            for worker in self._workers.values()
            for batch in worker.batches.values()
            for other in batch.requests
        ):
            self._abandoned.add(request.id)
        return False

    def worker_ready(self, name: str, models: Iterable[str], kind: str = "") -> None:
        """``name`` can take batches of ``models``; told again when it can take those of others."""
        known = self._workers.get(name)
        if known is None:
            self._workers[name] = _Worker(name, frozenset(models), kind)
            self._kinds = tuple(dict.fromkeys(worker.kind for worker in self._workers.values()))
        else:
            known.models = frozenset(models)

    def batch_done(self, worker: str, batch_id: int, now: float, compute_s: float | None) -> Batch:
        """``worker`` is through with a batch, which took ``compute_s``; None when it failed.

        Raises:
            KeyError: if the worker does not have that batch.
        """
        holder = self._workers[worker]
        batch = holder.batches.pop(batch_id)
        if self._abandoned:
            self._abandoned.difference_update(request.id for request in batch.requests)
        if compute_s is not None:
            self.durations.learn(batch.model, batch.rows, compute_s, holder.kind)
        self._begin(holder, now)
        return batch

    def worker_alive(self, worker: str, now: float) -> None:
        """``worker`` is at work on its batch: if it hangs, then from now on."""
        self._begin(self._workers[worker], now)

    def worker_lost(self, name: str) -> tuple[Request, ...]:
        """``name`` is dead. What it had goes back to the head of its queue.

        The batch it was computing may be why: each of its requests is computed alone from now on, and
        those that were tried often enough are returned, to be refused. A batch that was ahead is not
        to blame.
        """
        worker = self._workers.pop(name, None)
        if worker is None:
            return ()
        lost = []
        computing = next(iter(worker.batches), None)
        for batch in reversed(worker.batches.values()):
            for request in reversed(batch.requests):
                if request.id in self._abandoned:
                    self._abandoned.discard(request.id)
                    continue
                blame = 1 if batch.id == computing else 0
                again = request._replace(attempts=request.attempts + blame)
                if again.attempts >= self.limits.max_attempts:
                    lost.append(request)
                    continue
                self._queues[request.model].put_back(again)
                if again.deadline_s < math.inf:
                    heapq.heappush(self._deadlines, (again.deadline_s, again.id, again.model))
        return tuple(reversed(lost))

    def drop_model(self, model: str) -> tuple[Request, ...]:
        """Nobody will compute ``model``: forget and return the requests that wait for it."""
        queue = self._queues.pop(model, Queue())
        self._deadlines = [entry for entry in self._deadlines if entry[2] != model]
        heapq.heapify(self._deadlines)
        return tuple(queue)

    def batch_rows(self, model: str) -> int:
        """Rows that a batch of ``model`` has at most, where workers take the most; 0 if none has it."""
        able = [worker.kind for worker in self._workers.values() if model in worker.models]
        return max((self._full_rows(model, kind) for kind in able), default=0)

    def rows_queued(self, model: str) -> int:
        """Rows of ``model`` that wait for a worker."""
        queue = self._queues.get(model)
        return queue.rows if queue else 0

    def _must_wait(self, model: str) -> bool:
        """Whether what waits for ``model`` does so until a worker is done, whatever the time."""
        if self.limits.lead_s is not None:
            return False
        rows = self.rows_queued(model)
        for worker in self._workers.values():
            if model in worker.models and (
                not worker.batches or rows >= self._full_rows(model, worker.kind)
            ):
                return False
        return True

    def rows_in_flight(self, model: str) -> int:
        """Rows of ``model`` that are with a worker."""
        # Copies: metrics ask from another thread while batches come and go.
        return sum(
            batch.rows
            for worker in tuple(self._workers.values())
            for batch in tuple(worker.batches.values())
            if batch.model == model
        )

    def backlog_s(self, model: str) -> float | None:
        """Expected seconds until what waits for ``model`` is computed; None if that is not known."""
        queued = self.rows_queued(model)
        if not queued:
            return 0.0
        most = self.limits.max_batch_rows
        rows_per_s = 0.0
        # A copy: metrics ask from another thread while workers come and go.
        for worker in tuple(self._workers.values()):
            if model in worker.models:
                full_s = self.durations.predict(model, most, worker.kind)
                if full_s is None:
                    return None
                rows_per_s += most / max(full_s, 1e-9)
        return queued / rows_per_s if rows_per_s else None

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is being computed."""
        for worker in self._workers.values():
            if worker.batches:
                return False
        return not any(self._queues.values())

    def poll(self, now: float) -> Decisions:
        """Decide what can be decided at ``now``."""
        self._poll_due = False
        expired = self._expire(now)
        dispatches = []
        while True:
            batch, wake_s = self._next_dispatch(now)
            if batch is None:
                break
            dispatches.append(batch)
        if self._deadlines:
            self._forget_deadlines()
        if self._deadlines:
            wake_s = min(wake_s, self._deadlines[0][0])
        hung, hang_s = self._find_hung(now)
        self._wake_s = min(wake_s, hang_s)
        return Decisions(tuple(dispatches), expired, hung, self._wake_s)

    def _find_hung(self, now: float) -> tuple[tuple[str, ...], float]:
        """Workers whose batch hangs by now, and when the next one would."""
        hung = []
        next_s = math.inf
        for worker in self._workers.values():
            if worker.hangs_s <= now:
                worker.hung, worker.hangs_s = True, math.inf
                hung.append(worker.name)
            elif worker.hangs_s < next_s:
                next_s = worker.hangs_s
        return tuple(hung), next_s

    def _expire(self, now: float) -> tuple[Request, ...]:
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request_id, model = heapq.heappop(self._deadlines)
            request = self._queues[model].remove(request_id)
            if request is not None:
                expired.append(request)
        return tuple(expired)

    def _forget_deadlines(self) -> None:
        """Drop the deadlines of requests that wait no more: those that come next, and too many."""
        waiting = sum(len(queue) for queue in self._queues.values())
        if len(self._deadlines) > 2 * waiting + 64:
            self._deadlines = [entry for entry in self._deadlines if self._waits(entry)]
            heapq.heapify(self._deadlines)
        while self._deadlines and not self._waits(self._deadlines[0]):
            heapq.heappop(self._deadlines)

    def _waits(self, entry: tuple[float, int, str]) -> bool:
        _, request_id, model = entry
        return request_id in self._queues[model]

    def _next_dispatch(self, now: float) -> tuple[Batch | None, float]:
        """The next batch that can go, or None and when one could without anything else happening.

        Queues go by the priority and the age of their heads. A slot that a queue may take goes to
        one before it that may be closed, if there is one: a full queue must not keep the others from
        the slots ahead of busy workers.
        """
        wake_s = math.inf
        passed: list[tuple[Queue, str, int]] = []
        waiting = [queue for queue in self._queues.values() if queue]
        if len(waiting) > 1:
            waiting.sort(key=lambda queue: queue.rank(queue.head))
        for queue in waiting:
            found: tuple[_Worker, int] | None = None
            for kind in self._kinds:
                max_rows, ready_s = self._closable(queue, kind, now)
                full = 0 < max_rows <= queue.rows
                worker, free_s = self._worker_for(queue.head.model, kind, full, now)
                if worker is not None and max_rows > 0:
                    # Rather one that is idle than one that would be given a batch ahead.
                    if found is None or (found[0].batches and not worker.batches):
                        found = worker, max_rows
                elif max_rows > 0:
                    passed.append((queue, kind, max_rows))
                wake_s = min(wake_s, max(ready_s, free_s))
            if found is not None:
                worker, max_rows = found
                for older, kind, older_rows in passed:
                    if (
                        older is not queue
                        and kind == worker.kind
                        and older.head.model in worker.models
                    ):
                        return self._close(older, older_rows, worker, now), now
                return self._close(queue, max_rows, worker, now), now
        return None, wake_s

    def _closable(self, queue: Queue, kind: str, now: float) -> tuple[int, float]:
        """The most rows of a batch closed now for a worker of ``kind``, or 0 and when one may be closed."""
        head = queue.head
        if head.attempts > 0:
            return head.rows, now
        size = self._sizes.get((head.model, kind))
        max_rows = self._full_rows(head.model, kind)
        waits = size is None or size.waits
        due_s = queue.oldest_s + (self.limits.max_delay_s if waits else 0.0)
        if queue.rows >= max_rows or due_s <= now:
            return max_rows, now
        return 0, due_s

    def _full_rows(self, model: str, kind: str) -> int:
        """From how many rows on a batch for a worker of ``kind`` is full."""
        size = self._sizes.get((model, kind))
        most = self.limits.max_batch_rows
        return min(size.rows, most) if size else most

    def _worker_for(
        self, model: str, kind: str, full: bool, now: float
    ) -> tuple[_Worker | None, float]:
        """A worker of ``kind`` that may be given a batch now, or None and when one may be given it."""
        idle: _Worker | None = None
        soonest, free_s = None, math.inf
        for worker in self._workers.values():
            if model not in worker.models or worker.hung or worker.kind != kind:
                continue
            if not worker.batches:
                if idle is None or worker.last_given_s < idle.last_given_s:
                    idle = worker
            elif idle is None and len(worker.batches) <= self.limits.batches_ahead:
                at_s = now if full else self._ahead_s(worker, now)
                if at_s < free_s:
                    soonest, free_s = worker, at_s
        if idle is not None:
            return idle, now
        return (soonest if free_s <= now else None), free_s

    def _in_time(self, queue: Queue, max_rows: int, worker: _Worker, now: float) -> list[Request]:
        """The first requests that fit into ``max_rows`` and are expected to be done by their deadlines.

        Under overload the oldest requests are those that have least time left: a full batch would be
        late for them and for those behind. One that would be late even alone is passed over, and
        expires where it waits.
        """
        taken: list[Request] = []
        start_s = self._start_s(worker, now)
        rows, soonest_s = 0, math.inf
        for request in queue:
            if taken and (rows + request.rows > max_rows or request.attempts > 0):
                break
            limit_s = min(soonest_s, request.deadline_s)
            if limit_s < math.inf:
                expected_s = (
                    self.durations.predict(request.model, rows + request.rows, worker.kind) or 0.0
                )
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

    def _start_s(self, worker: _Worker, now: float) -> float:
        """When ``worker`` is expected to begin what it is given now."""
        return max(now, self._end_s(worker) or now) if worker.batches else now

    def _ahead_s(self, worker: _Worker, now: float) -> float:
        """When ``worker``, which computes, may be given a batch that is not full."""
        if self.limits.lead_s is None:
            return math.inf
        end_s = self._end_s(worker)
        return now if end_s is None else end_s - self.limits.lead_s

    def _end_s(self, worker: _Worker) -> float | None:
        """When the batch that ``worker`` computes is expected to be done; None if that is not known."""
        running = next(iter(worker.batches.values()))
        expected_s = self.durations.predict(running.model, running.rows, worker.kind)
        return None if expected_s is None else worker.began_s + expected_s

    def _close(self, queue: Queue, max_rows: int, worker: _Worker, now: float) -> Batch:
        """Take the first requests that fit into ``max_rows`` and can be in time; at least one."""
        taken = self._in_time(queue, max_rows, worker, now) or [queue.head]
        for request in taken:
            queue.remove(request.id)
        rows = sum(request.rows for request in taken)
        batch = Batch(self._next_batch, taken[0].model, worker.name, tuple(taken), rows, now)
        self._next_batch += 1
        worker.batches[batch.id] = batch
        if len(worker.batches) == 1:
            self._begin(worker, now)
        worker.last_given_s = now
        return batch

    def _begin(self, worker: _Worker, now: float) -> None:
        """From ``now`` on, ``worker`` computes the first of its batches, if it has one."""
        worker.began_s, worker.hangs_s = now, math.inf
        running = next(iter(worker.batches.values()), None)
        if running is not None and not worker.hung:
            expected_s = self.durations.predict(running.model, running.rows, worker.kind) or 0.0
            limits = self.limits
            worker.hangs_s = now + max(limits.hang_s, limits.hang_factor * expected_s)
