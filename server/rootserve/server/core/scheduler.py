"""The queue and the batcher: a pure state machine that is told what happened and when.

Requests for a single variant wait by priority and then in order of arrival
(:mod:`rootserve.server.core.queue`). A batch of them is closed late, only when a worker can take it: at once
when it is full, else when its oldest request has waited the maximal delay
(:mod:`rootserve.server.core.batching`). Requests for a family wait by deadline, are admitted if their
deadlines can be promised (:mod:`rootserve.server.core.admission`), and computed by the variant that a policy
chooses (:mod:`rootserve.server.core.in_time`). Limits count rows (images), not requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from rootserve.server.core.arrangement import Streams, kind_beside
from rootserve.server.core.batch_size import BatchSize, Latency
from rootserve.server.core.batching import Batching
from rootserve.server.core.deadlines import Deadlines
from rootserve.server.core.decisions import (
    Batch,
    Candidate,
    Choice,
    Decisions,
    Declined,
    Infeasible,
    Offered,
)
from rootserve.server.core.families import Families
from rootserve.server.core.family import Family, Member
from rootserve.server.core.in_time import MostAccurateInTime
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.limits import Limits
from rootserve.server.core.policy import Pick, Policy
from rootserve.server.core.queue import Queue, Request, form_of, rank, rows_of
from rootserve.server.core.worker import Slot, Worker, Workers

__all__ = [
    "Batch",
    "Candidate",
    "Choice",
    "Decisions",
    "Declined",
    "Infeasible",
    "Limits",
    "Member",
    "Offered",
    "Scheduler",
]

_AGAIN_S: Final = 0.001
"""After so long it is looked at again whether an idle worker is still needed for what was promised."""

_TO_POLL = Offered(None, poll=True)
_TO_WAIT = Offered(None, poll=False)
_DECLINED = {declined: Offered(declined, poll=False) for declined in Declined}


class Scheduler:
    """Decides which requests are computed when, together with which, and where.

    Every method is told the time ``now`` in seconds, which must not go back. Every request that was
    taken by :meth:`offer` leaves exactly once: in a batch that is done, in ``expired``, by
    :meth:`cancel`, by :meth:`drop_model` or :meth:`family_gone`, or as lost from :meth:`worker_lost`.

    ``durations``: how long batches take, learned from those that are done. ``policy`` chooses among the
    variants of families.
    """

    def __init__(
        self, limits: Limits, policy: Policy | None = None, table: LatencyTable | None = None
    ) -> None:
        self.limits = limits
        self.durations = table or LatencyTable()
        self._families = Families(limits, policy or MostAccurateInTime(), self.durations)
        self._queues: dict[str, Queue] = {}
        self._workers = Workers(limits, self._families.speeds)
        self._batching = Batching(limits, self.durations, self._workers)
        self._deadlines = Deadlines()
        self._abandoned: set[int] = set()
        self._next_batch = 1
        self._wake_s = math.inf
        self._poll_due = False

    # What there is to compute, and by whom.

    def model_measured(
        self, model: str, latency: Latency, kind: str = "", streams: Streams | None = None
    ) -> BatchSize:
        """Batches of ``model`` take so long on workers of ``kind``; gives how large they will be there.

        ``streams``: how such workers compute them side by side, if they do.
        """
        return self._batching.measured(model, latency, kind, streams)

    def family_served(self, name: str, members: Iterable[Member]) -> None:
        """Requests for ``name`` may be computed by any of ``members``; replaces what was told before."""
        self._families.served(name, members, frozenset(self._workers.kinds))

    def family_gone(self, name: str) -> tuple[Request, ...]:
        """Nobody will compute ``name``: forget it, and return the requests that wait for it."""
        return self._families.gone(name)

    def drop_model(self, model: str) -> tuple[Request, ...]:
        """Nobody will compute ``model``: forget and return the requests that wait for it."""
        queue = self._queues.pop(model, Queue())
        self._deadlines.keep(lambda request_id, of: of != model)
        return tuple(queue)

    # Requests.

    def offer(self, request: Request, now: float) -> Offered:
        """Take ``request`` into its queue, or say why not.

        Whoever is told to poll does so before long: until then it is not told again.
        """
        if request.rows > self.limits.max_batch_rows:
            return _DECLINED[Declined.TOO_MANY_ROWS]
        if request.deadline_s <= now:
            return _DECLINED[Declined.TOO_LATE]
        family = self._families.get(request.model)
        self._batching.arrangement.crowd.came(self._others(), now)
        if family is not None:
            return self._offer_to_family(family, request, now)
        queue = self._queues.get(request.model)
        if queue is None:
            queue = self._queues[request.model] = Queue(self.limits.priority_age_s)
        if queue.rows_at(request.priority) + request.rows > self.limits.max_queue_rows:
            return _DECLINED[Declined.QUEUE_FULL]
        queue.append(request)
        return self._taken(
            request,
            request.deadline_s >= self._wake_s
            and self._batching.must_wait(request.model, queue.rows),
        )

    def _others(self) -> float:
        """Rows that wait for single variants or are computed, for each worker."""
        rows, workers = 0, 0
        for queue in self._queues.values():
            rows += queue.rows
        for worker in self._workers:
            workers += 1
            for batch in worker.batches.values():
                rows += batch.rows
        return rows / max(1, workers)

    def _offer_to_family(self, family: Family, request: Request, now: float) -> Offered:
        slots, takers = self._workers.slots(now)
        reserved = self._reserved(slots, now)
        declined, infeasible = self._families.offer(family, request, reserved, now)
        if declined is not None:
            return Offered(declined, poll=False, infeasible=infeasible)
        return self._taken(
            request,
            not takers and self.limits.lead_s is None and request.deadline_s >= self._wake_s,
        )

    def _taken(self, request: Request, must_wait: bool) -> Offered:
        self._deadlines.add(request)
        if self._poll_due or must_wait:
            return _TO_WAIT
        self._poll_due = True
        return _TO_POLL

    def cancel(self, request: Request) -> bool:
        """Forget ``request``; if a worker has it already, its answer is for nobody.

        Returns whether it was still waiting.
        """
        if self._remove(request.model, request.id) is not None:
            return True
        if self._workers.holds(request.id):
            self._abandoned.add(request.id)
        return False

    def _remove(self, model: str, request_id: int) -> Request | None:
        """Take a request out of where it waits; None if it does not."""
        if model in self._families:
            return self._families.remove(model, request_id)
        queue = self._queues.get(model)
        return None if queue is None else queue.remove(request_id)

    # Workers.

    def worker_ready(
        self, name: str, models: Iterable[str], kind: str = "", lanes: int = 1
    ) -> None:
        """``name`` can take batches of ``models``; told again when it can take those of others.

        ``lanes``: how many it computes side by side at most.
        """
        self._workers.ready(name, models, kind, lanes)

    def batch_done(self, worker: str, batch_id: int, now: float, compute_s: float | None) -> Batch:
        """``worker`` is through with a batch, which took ``compute_s``; None when it failed.

        Raises:
            KeyError: if the worker does not have that batch.
        """
        batch = self._workers.done(worker, batch_id, now, compute_s)
        if self._abandoned:
            self._abandoned.difference_update(request.id for request in batch.requests)
        return batch

    def worker_alive(self, worker: str, now: float, batch_id: int | None = None) -> None:
        """``worker`` is at work on a batch, or on all of them: if it hangs, then from now on."""
        self._workers.heard(self._workers[worker], now, batch_id)

    def worker_lost(self, name: str) -> tuple[Request, ...]:
        """``name`` is dead. What it had goes back to the head of its queue.

        What it was computing may be why: each of those requests is computed alone from now on, and
        those that were tried often enough are returned, to be refused. A batch that was ahead is not
        to blame.
        """
        worker = self._workers.lost(name)
        if worker is None:
            return ()
        lost = []
        for batch in reversed(worker.batches.values()):
            for request in reversed(batch.requests):
                if request.id in self._abandoned:
                    self._abandoned.discard(request.id)
                    continue
                blame = 1 if batch.id in worker.running else 0
                again = request._replace(attempts=request.attempts + blame)
                if again.attempts >= self.limits.max_attempts:
                    lost.append(request)
                    continue
                if request.model in self._families:
                    self._families.again(again, frozenset(self._workers.kinds))
                else:
                    self._queues[request.model].put_back(again)
                self._deadlines.add(again)
        return tuple(reversed(lost))

    # What others ask.

    def batch_rows(self, model: str) -> int:
        """Rows that a batch of ``model`` has at most, where workers take the most; 0 if none has it."""
        able = [worker.kind for worker in self._workers if model in worker.models]
        return max((self._batching.full_rows(model, kind) for kind in able), default=0)

    def rows_queued(self, model: str) -> int:
        """Rows of ``model``, a variant or a family, that wait for a worker."""
        queue = self._families.get(model) or self._queues.get(model)
        return queue.rows if queue else 0

    def rows_in_flight(self, *models: str) -> int:
        """Rows that workers compute with one of these variants."""
        # Copies: metrics ask from another thread while batches come and go.
        return sum(
            batch.rows
            for worker in self._workers.copy()
            for batch in tuple(worker.batches.values())
            if batch.model in models
        )

    def backlog_s(self, model: str) -> float | None:
        """Expected seconds until what waits for ``model`` is computed; None if that is not known.

        For a family, each worker takes the fastest variant that it has: more work would be refused, not wait.
        """
        queued = self.rows_queued(model)
        if not queued:
            return 0.0
        family = self._families.get(model)
        names = [member.variant for member in family.members] if family else [model]
        most = self.limits.max_batch_rows
        rows_per_s = 0.0
        # A copy: metrics ask from another thread while workers come and go.
        for worker in self._workers.copy():
            able = [name for name in names if name in worker.models]
            told = [self.durations.predict(name, most, worker.kind) for name in able]
            known = [seconds for seconds in told if seconds is not None]
            if able and not known:
                return None
            if known:
                rows_per_s += most / max(min(known), 1e-9)
        return queued / rows_per_s if rows_per_s else None

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is being computed."""
        for worker in self._workers:
            if worker.batches:
                return False
        return not any(self._queues.values()) and not any(map(len, self._families))

    # Decisions.

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
            waiting = sum(map(len, self._queues.values())) + sum(map(len, self._families))
            wake_s = min(wake_s, self._deadlines.next_s(self._waits, waiting))
        hung, hang_s = self._workers.find_hung(now)
        self._wake_s = min(wake_s, hang_s)
        return Decisions(tuple(dispatches), expired, hung, self._wake_s)

    def _expire(self, now: float) -> tuple[Request, ...]:
        expired = []
        for request_id, model in self._deadlines.past(now):
            request = self._remove(model, request_id)
            if request is not None:
                expired.append(request)
                if (family := self._families.get(model)) is not None:
                    family.demand.lost(request.rows, now)
        return tuple(expired)

    def _waits(self, request_id: int, model: str) -> bool:
        family = self._families.get(model)
        if family is not None:
            return request_id in family
        return model in self._queues and request_id in self._queues[model]

    def _next_dispatch(self, now: float) -> tuple[Batch | None, float]:
        """The next batch that can go, or None and when one could without anything else happening.

        Queues go by the priority and the age of their heads. A slot that a queue may take goes to
        one before it that may be closed, if there is one: a full queue must not keep the others from
        the slots ahead of busy workers. And it goes to no single variant, if that would break what was
        promised to a family.
        """
        wake_s = math.inf
        passed: list[tuple[Queue, str, int]] = []
        # Who finds none to join, or needs one alone, would wait for ever if others kept joining each other.
        may_join = True
        waiting: list[Queue | Family] = [queue for queue in self._queues.values() if queue]
        if self._families:
            waiting.extend(family for family in self._families if len(family))
        if len(waiting) > 1:
            age_s = self.limits.priority_age_s
            waiting.sort(key=lambda queue: rank(queue.head, age_s))
        for queue in waiting:
            if isinstance(queue, Family):
                batch, ready_s = self._of_family(queue, now)
                if batch is not None:
                    return batch, now
                may_join = may_join and self._workers.any_idle()
                wake_s = min(wake_s, ready_s)
                continue
            found = self._batching.place_for(queue, self._workers.kinds, now, may_join)
            passed.extend((queue, kind, max_rows) for kind, max_rows in found.passed)
            wake_s = min(wake_s, found.wake_s)
            worker, max_rows = found.worker, found.max_rows
            if worker is None or not self._spare(queue, worker, max_rows, now):
                if worker is not None and not worker.batches:
                    # What a busy worker is through with brings the next decision by itself.
                    wake_s = min(wake_s, now + _AGAIN_S)
                may_join = may_join and not found.may_close
                continue
            for older, kind, older_rows in passed:
                if (
                    older is not queue
                    and kind == worker.kind
                    and older.head.model in worker.models
                    and self._spare(older, worker, older_rows, now)
                ):
                    return self._close(older, older_rows, worker, now), now
            return self._close(queue, max_rows, worker, now), now
        return None, wake_s

    def _reserved(self, slots: list[Slot], now: float) -> list[Slot]:
        """``slots`` as they are free once one batch of everything that is overdue was computed.

        Newcomers get no promises for that time, so that it comes, however many there are.
        """
        patience_s = self.limits.patience_s
        for model, queue in self._queues.items():
            if queue and now - queue.oldest_s > patience_s:
                rows = min(queue.rows, self.batch_rows(model))
                self._reserve(slots, model, rows)
        for family in self._families:
            if len(family) and family.due[0] < now and family.head.deadline_s == math.inf:
                variant = family.members[-1].variant if family.members else ""
                self._reserve(slots, variant, min(family.rows, self.limits.max_batch_rows))
        return slots

    def _reserve(self, slots: list[Slot], model: str, rows: int) -> None:
        able = [number for number, slot in enumerate(slots) if model in slot.models]
        if able and rows:
            number = min(able, key=lambda one: slots[one].free_s)
            slot = slots[number]
            seconds = self.durations.bound(model, rows, slot.kind) or 0.0
            slots[number] = slot.later(seconds)

    def _spare(self, queue: Queue, worker: Worker, max_rows: int, now: float) -> bool:
        """Whether ``worker`` may compute a batch of ``queue`` without a promise being broken by it."""
        if not self._families.promises:
            return True
        seconds = self.durations.bound(queue.head.model, min(queue.rows, max_rows), worker.kind)
        return self._families.spare(self._workers.slots(now)[0], worker.name, seconds or 0.0)

    def _of_family(self, family: Family, now: float) -> tuple[Batch | None, float]:
        """The batch of ``family`` that goes now, or None and when to ask again."""
        slots, takers = self._workers.slots(now)
        if not takers:
            return None, self._workers.next_ahead_s(now)
        answer = self._families.choose(family, slots, takers, now)
        if not isinstance(answer, Pick):
            return None, answer.until_s
        worker = self._workers[answer.worker]
        self._deadlines.left(answer.requests)
        return self._give(worker, answer.variant, answer.requests, now, answer.choice), now

    def _close(self, queue: Queue, max_rows: int, worker: Worker, now: float) -> Batch:
        """Take the first requests that fit into ``max_rows`` and can be in time; at least one."""
        taken = self._batching.in_time(queue, max_rows, worker, now) or [queue.head]
        for request in taken:
            queue.remove(request.id)
        rows = rows_of(taken)
        beside = self._batching.goes_beside(taken[0], rows, worker)
        return self._give(worker, taken[0].model, tuple(taken), now, beside=beside)

    def _give(
        self,
        worker: Worker,
        variant: str,
        requests: tuple[Request, ...],
        now: float,
        choice: Choice | None = None,
        beside: bool = False,
    ) -> Batch:
        """Hand ``requests``, which wait no more, to ``worker``; ``beside`` others that it has or gets."""
        rows = rows_of(requests)
        of_family = variant != requests[0].model
        kind, form = kind_beside(worker.kind) if beside else worker.kind, form_of(requests)
        batch = Batch(
            self._next_batch,
            variant,
            worker.name,
            requests,
            rows,
            now,
            self.durations.bound(variant, rows, kind, form),
            choice,
            beside,
            # Of a single variant it is asked for only if families are asked for meanwhile.
            self._families.speeds.of(variant, kind, form).cost(rows) if of_family else None,
        )
        self._next_batch += 1
        self._workers.give(worker, batch, now)
        return batch
