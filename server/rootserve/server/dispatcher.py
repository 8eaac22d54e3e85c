"""Admission and dispatch: the only one who speaks to the scheduler, the pool and those who wait."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from dataclasses import dataclass
from typing import NamedTuple

from rootserve.server.core.batch_size import Latency
from rootserve.server.core.queue import Request
from rootserve.server.core.reasons import Reason, RefusalError
from rootserve.server.core.scheduler import Batch, Limits, Scheduler
from rootserve.server.models import ENCODED_NAME, Models
from rootserve.server.observers.events import Observer, Timeline
from rootserve.server.observers.traces import BatchTimes, RequestTrace, TracedRequest, Traces
from rootserve.server.turns import Turns
from rootserve.server.workers.handle import Part
from rootserve.server.workers.pool import BatchReport, WorkerPool

_log = logging.getLogger(__name__)

_EXPIRED = "the deadline passed while the request waited for a worker"
# When nothing is known of how long batches take.
_RETRY_AFTER_S = 0.1


class InferenceRequest(NamedTuple):
    """A valid request, as the wire hands it in. ``arrived_s`` and ``deadline_s`` are monotonic."""

    model: str
    part: Part
    arrived_s: float
    deadline_s: float = math.inf
    priority: int = 1


class Answer(NamedTuple):
    """``logits`` is float32 [rows, classes] in row-major order."""

    logits: bytes
    timeline: Timeline


@dataclass(slots=True)
class Admitted:
    """A request that was admitted, for :meth:`Dispatcher.answer` or :meth:`Dispatcher.withdraw`."""

    request: Request
    part: Part
    future: asyncio.Future[Answer]
    trace: RequestTrace | None


class Dispatcher:
    """Admits requests and sees each one through to exactly one answer or refusal.

    Lives on one event loop. Implements :class:`rootserve.server.workers.pool.PoolEvents`. Holds at most
    ``max_bytes`` of requests.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        pool: WorkerPool,
        models: Models,
        observer: Observer,
        traces: Traces | None = None,
        max_bytes: float = math.inf,
    ) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._scheduler = scheduler
        self._pool = pool
        self._models = models
        self._observer = observer
        self._traces = traces
        self._waiting: dict[int, Admitted] = {}
        self._turns = Turns()
        self._ids = itertools.count(1)
        self._draining = False
        self._drained = asyncio.Event()
        self._pump_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._wake_s = math.inf
        self._loop = asyncio.get_running_loop()

    @property
    def limits(self) -> Limits:
        """What the scheduler keeps to."""
        return self._scheduler.limits

    def admit(self, request: InferenceRequest, trace: RequestTrace | None = None) -> Admitted:
        """Take ``request``; ``trace`` will be told of its batch.

        Raises:
            RefusalError: if it is not taken.
        """
        admitted = self._admit(request, trace)
        if not self._pump_due and (
            request.deadline_s < self._wake_s or not self._scheduler.must_wait(request.model)
        ):
            # Once this turn of the loop is over, so that all requests it brings are seen.
            self._pump_due = True
            self._loop.call_soon(self._pump)
        return admitted

    async def admit_in_turn(
        self, request: InferenceRequest, trace: RequestTrace | None = None
    ) -> Admitted:
        """As :meth:`admit`, but while the queue is full wait for room, and at most until the deadline.

        Raises:
            RefusalError: if it is not taken.
        """
        return await self._turns.take(
            request.model,
            request.deadline_s - time.monotonic(),
            lambda: self.admit(request, trace),
            lambda: bool(self._waiting),
        )

    async def answer(self, admitted: Admitted) -> Answer:
        """Wait for the answer; a caller that is cancelled withdraws the request.

        Raises:
            RefusalError: if there will be none.
        """
        try:
            answer = await admitted.future
        except asyncio.CancelledError:
            self.withdraw(admitted)
            raise
        except RefusalError:
            self._forget(admitted)
            raise
        self._forget(admitted)
        self._observer.answered(admitted.request.model, admitted.request.rows, answer.timeline)
        return answer

    def withdraw(self, admitted: Admitted) -> None:
        """Nobody waits for the answer any more."""
        if not admitted.future.cancel() and not admitted.future.cancelled():
            admitted.future.exception()  # seen, or the loop complains that nobody saw it
        if self._scheduler.cancel(admitted.request) and admitted.trace is not None:
            admitted.trace.left_queue()
        self._forget(admitted)

    def _forget(self, admitted: Admitted) -> None:
        del self._waiting[admitted.request.id]
        self._bytes -= len(admitted.part.content)
        self._turns.next_of_all()
        self._check_drained()

    async def drain_model(self, model: str) -> None:
        """Wait until nothing of ``model`` waits or is computed; nothing more must be admitted."""
        waiting = [one.future for one in self._waiting.values() if one.request.model == model]
        if waiting:
            await asyncio.wait(waiting)

    async def drain(self) -> None:
        """Refuse what comes from now on, and wait until what was admitted is answered."""
        self._draining = True
        self._turns.next_of_all()  # who is refused lets the next one try
        self._check_drained()
        await self._drained.wait()

    def close(self) -> None:
        """Forget the timer; call it when no worker is left."""
        if self._timer is not None:
            self._timer.cancel()

    def _admit(self, request: InferenceRequest, trace: RequestTrace | None) -> Admitted:
        if self._draining:
            raise RefusalError(Reason.DRAINING, "the server is shutting down; use another one")
        model = self._models.get(request.model)
        assert model is not None, "the wire checks the name"
        if not model.takes_requests:
            raise RefusalError(
                Reason.MODEL_NOT_READY,
                f"model {request.model} is not ready: {model.state_reason}",
            )
        size = len(request.part.content)
        if self._bytes + size > self._max_bytes:
            raise RefusalError(
                Reason.QUEUE_FULL,
                f"requests of {self._bytes} bytes are being answered, {size} more came, the limit is "
                f"{self._max_bytes:.0f}",
                self._scheduler.backlog_s(request.model) or _RETRY_AFTER_S,
            )
        offered = Request(
            id=next(self._ids),
            model=request.model,
            rows=request.part.rows,
            arrived_s=request.arrived_s,
            deadline_s=request.deadline_s,
            priority=request.priority,
        )
        reason = self._scheduler.offer(offered, time.monotonic())
        if reason is not None:
            retry_after_s = None
            if reason is Reason.QUEUE_FULL:
                retry_after_s = self._scheduler.backlog_s(request.model) or _RETRY_AFTER_S
            raise RefusalError(reason, self._refusal_text(reason, offered), retry_after_s)
        admitted = Admitted(offered, request.part, self._loop.create_future(), trace)
        self._waiting[offered.id] = admitted
        self._bytes += size
        return admitted

    def _refusal_text(self, reason: Reason, request: Request) -> str:
        limits = self._scheduler.limits
        match reason:
            case Reason.QUEUE_FULL:
                queued = self._scheduler.rows_queued(request.model)
                return (
                    f"the queue of {request.model} is full: {queued} rows wait, {request.rows} more "
                    f"came, the limit is {limits.max_queue_rows} for each priority"
                )
            case Reason.DEADLINE_LOST:
                return "the deadline had passed when the request came"
            case _:
                return f"{request.rows} rows came, at most {limits.max_batch_rows} are computed at once"

    def _check_drained(self) -> None:
        if self._draining and not self._waiting:
            self._drained.set()

    # What the pool tells.

    def model_measured(self, worker: str, model: str, latency: Latency, device_name: str) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        size = self._scheduler.model_measured(model, latency, device_name)
        waits = "worth waiting for" if size.waits else "not worth waiting for"
        text = "worker %s: batches of %s have up to %d rows, more are %s"
        fields = {"worker": worker, "model": model, "batch_rows": size.rows, "waits": size.waits}
        _log.info(text, worker, model, size.rows, waits, extra=fields)

    def worker_ready(self, worker: str, models: frozenset[str], device_name: str = "") -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        self._scheduler.worker_ready(worker, models, device_name)
        self._pump()

    def batch_done(self, worker: str, batch: int, report: BatchReport) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        now = time.monotonic()
        compute_s = (report.ended_ns - report.began_ns) * 1e-9
        # A batch of which only a part was computed tells nothing of how long batches take, and pictures
        # take their own time.
        is_part = report.expired or report.refused
        learned_s = None if is_part else compute_s - report.decode_ns * 1e-9
        done = self._scheduler.batch_done(worker, batch, now, learned_s)
        logits = self._pool.take_output(worker, batch, done.model, done.rows)
        try:
            if not self._scheduler.is_empty:
                self._pump()  # before the answers: the worker is idle
        finally:
            self._answer(done, logits, report)
        if self._traces is not None:
            self._trace(self._traces, done, report)
        self._observer.computed(worker, done.model, done.rows, compute_s)

    def batch_decoding(self, worker: str) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        self._scheduler.worker_alive(worker, time.monotonic())

    def batch_failed(self, worker: str, batch: int, error: str, report: BatchReport) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        failed = self._scheduler.batch_done(worker, batch, time.monotonic(), None)
        if self._traces is not None:
            self._trace(self._traces, failed, report)
        for request in failed.requests:
            text = f"model {failed.model} failed on this batch: {error}"
            self._refuse(request, Reason.MODEL_FAILURE, text, worker)
        self._pump()

    def worker_lost(self, worker: str) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        for request in self._scheduler.worker_lost(worker):
            text = f"{self._scheduler.limits.max_attempts} workers died while they computed this request"
            self._refuse(request, Reason.WORKER_LOST, text, worker)
        self._observer.worker_lost(worker)
        self._pump()

    def model_failed(self, model: str) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        failed = self._models.get(model)
        assert failed is not None
        why = "; ".join(f"{worker}: {why}" for worker, why in failed.failures.items())
        for request in self._scheduler.drop_model(model):
            self._trace_end_of_wait(request)
            text = f"model {model} is not ready: {why}"
            self._refuse(request, Reason.MODEL_NOT_READY, text)

    # Dispatch.

    def _pump(self) -> None:
        self._pump_due = False
        now = time.monotonic()
        decisions = self._scheduler.poll(now)
        for batch in decisions.dispatches:
            parts = tuple(self._waiting[request.id].part for request in batch.requests)
            self._pool.run(batch.worker, batch.id, batch.model, parts)
        for worker in decisions.hung:
            self._pool.kill(worker)
        for request in decisions.expired:
            self._trace_end_of_wait(request)
            self._refuse(request, Reason.DEADLINE_EXPIRED, _EXPIRED)
        if decisions.wake_s < self._wake_s:
            self._wake_at(decisions.wake_s, now)

    def _wake_at(self, wake_s: float, now: float) -> None:
        """Pump again at ``wake_s``. A timer that turns out to be early does no harm."""
        if self._timer is not None:
            self._timer.cancel()
        self._wake_s = wake_s
        # uvloop counts whole milliseconds and rounds: up, or it would fire before its time.
        delay_s = math.ceil(max(0.0, wake_s - now) * 1e3) * 1e-3
        self._timer = self._loop.call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._wake_s = None, math.inf
        self._pump()

    def _answer(self, batch: Batch, logits: bytes, report: BatchReport) -> None:
        formed_ns = int(batch.formed_s * 1e9)
        refused = dict(report.refused)
        row_bytes = len(logits) // batch.rows
        offset = 0
        for position, request in enumerate(batch.requests):
            length = request.rows * row_bytes
            share = logits[offset : offset + length]
            offset += length
            if position in report.expired:
                self._refuse(request, Reason.DEADLINE_EXPIRED, _EXPIRED)
                continue
            if position in refused:
                text = f"tensor {ENCODED_NAME}: {refused[position]}"
                self._refuse(request, Reason.INVALID_REQUEST, text)
                continue
            waiting = self._waiting.get(request.id)
            if waiting is None or waiting.future.done():
                continue  # cancelled: the answer is for nobody
            arrived_ns = int(request.arrived_s * 1e9)
            timeline = Timeline(
                queue_ns=formed_ns - arrived_ns,
                batch_wait_ns=max(0, report.began_ns - formed_ns),
                compute_ns=report.ended_ns - report.began_ns,
                total_ns=time.monotonic_ns() - arrived_ns,
                batch_rows=batch.rows,
                worker=batch.worker,
                engine=report.engine,
                precision=report.precision,
                decode_ns=report.decode_ns,
            )
            waiting.future.set_result(Answer(share, timeline))

    def _trace(self, traces: Traces, batch: Batch, report: BatchReport) -> None:
        """Tell of a batch in which traced requests are; one that failed has no times."""
        traced = [
            TracedRequest(
                trace=waiting.trace,
                arrived_ns=int(request.arrived_s * 1e9),
                rows=request.rows,
                attempts=request.attempts,
                expired=position in report.expired,
            )
            for position, request in enumerate(batch.requests)
            if (waiting := self._waiting.get(request.id)) and waiting.trace
        ]
        if not traced:
            return
        times = BatchTimes(
            model=batch.model,
            rows=batch.rows,
            requests=len(batch.requests),
            worker=batch.worker,
            engine=report.engine,
            precision=report.precision,
            closed_ns=int(batch.formed_s * 1e9),
            began_ns=report.began_ns or None,
            ended_ns=report.ended_ns or time.monotonic_ns(),
        )
        traces.batch_ended(times, traced)

    def _trace_end_of_wait(self, request: Request) -> None:
        waiting = self._waiting.get(request.id)
        if waiting is not None and waiting.trace is not None:
            waiting.trace.left_queue()

    def _refuse(self, request: Request, reason: Reason, text: str, worker: str = "") -> None:
        waiting = self._waiting.get(request.id)
        if waiting is not None and not waiting.future.done():
            waiting.future.set_exception(RefusalError(reason, text, worker=worker))
