"""Requests on their way to workers: admitted, handed over in batches, each answered or refused once."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Any

from rootserve.server.core.arrangement import Streams
from rootserve.server.core.batch_size import Latency
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Batch, Limits, Offered, Scheduler
from rootserve.server.declined import refusal_of, retry_after_s
from rootserve.server.families import find, virtual_model
from rootserve.server.members import Members
from rootserve.server.models import ENCODED_NAME, Models
from rootserve.server.observers.events import Observer
from rootserve.server.pending import Answer, Pending, Report, Story, Timeline
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.turns import Turns
from rootserve.server.workers.pool import WorkerPool

_log = logging.getLogger(__name__)

_EXPIRED = "the deadline passed while the request waited for a worker"


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
        max_bytes: float = math.inf,
    ) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._scheduler = scheduler
        self._pool = pool
        self._models = models
        self._observer = observer
        self._members = Members(models, scheduler)
        self._waiting: dict[int, Pending] = {}
        self._turns = Turns()
        self.draining = asyncio.Event()
        """Set from the moment on in which nothing more is admitted."""
        self._drained = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_s = math.inf
        self._loop = asyncio.get_running_loop()

    @property
    def limits(self) -> Limits:
        """What the scheduler keeps to."""
        return self._scheduler.limits

    # Requests.

    def submit(self, pending: Pending) -> None:
        """Take ``pending``, for :meth:`answer` or :meth:`withdraw`.

        Raises:
            RefusalError: if it is not taken.
        """
        request = pending.request
        size = len(pending.content)
        self._check(request.model, size)
        if self.limits.explain:
            waiting = self._scheduler.rows_queued(request.model)
            variants = self._members.variants(request.model) or (request.model,)
            computing = self._scheduler.rows_in_flight(*variants)
            pending.story = Story(request, waiting, computing)
        offered = self._offer(request)
        if offered.declined is not None:
            raise refusal_of(offered, request, self._scheduler)
        pending.answer = self._loop.create_future()
        self._waiting[request.id] = pending
        self._bytes += size
        if offered.poll:
            # Once this turn of the loop is over, so that all requests it brings are seen.
            self._loop.call_soon(self._pump)

    def _offer(self, request: Request) -> Offered:
        now = time.monotonic()
        if now < request.deadline_s < math.inf and self._models.get(request.model) is None:
            family = virtual_model(self._models, request.model)
            if family is not None and not family.is_ready:
                # All its workers are being replaced: nothing can be promised, nor that it cannot be.
                self._loop.call_later(request.deadline_s - now, self._expire, request)
                request = request._replace(deadline_s=math.inf)
        return self._scheduler.offer(request, now)

    def _expire(self, request: Request) -> None:
        """The deadline of ``request`` has passed, of which the scheduler does not know."""
        pending = self._waiting.get(request.id)
        if pending is not None and not pending.worker and self._scheduler.cancel(request):
            self._refuse_waiting(request, Reason.DEADLINE_EXPIRED, _EXPIRED)

    def submit_at_once(self, pending: Pending) -> bool:
        """As :meth:`submit`; False if it has to wait for its turn, for :meth:`submit_in_turn`.

        Raises:
            RefusalError: if it is not taken.
        """
        if not self._turns.is_free(pending.request.model):
            return False
        try:
            self.submit(pending)
        except RefusalError as refusal:
            if refusal.reason is Reason.QUEUE_FULL and self._waiting:
                return False
            raise
        return True

    async def submit_in_turn(self, pending: Pending) -> None:
        """As :meth:`submit`, but while the queue is full wait for room, and at most until the deadline.

        Raises:
            RefusalError: if it is not taken.
        """
        await self._turns.take(
            pending.request.model,
            pending.request.deadline_s - time.monotonic(),
            lambda: self.submit(pending),
            lambda: bool(self._waiting),
        )

    async def answer(self, pending: Pending) -> Answer:
        """Wait for the answer; a caller that is cancelled withdraws the request.

        Raises:
            RefusalError: if there will be none.
        """
        try:
            answer = await pending.answer
        except asyncio.CancelledError:
            self.withdraw(pending)
            raise
        except RefusalError:
            self._forget(pending)
            raise
        self._forget(pending)
        return answer

    def withdraw(self, pending: Pending) -> None:
        """Nobody waits for the answer any more."""
        if not pending.answer.cancel() and not pending.answer.cancelled():
            pending.answer.exception()  # seen, or the loop complains that nobody saw it
        if self._scheduler.cancel(pending.request):
            pending.left_queue_ns = time.monotonic_ns()
        self._forget(pending)

    def _forget(self, pending: Pending) -> None:
        del self._waiting[pending.request.id]
        self._bytes -= len(pending.content)
        self._turns.next_of_all()
        self._check_drained()

    def backlog_s(self, model: str) -> float | None:
        """Expected seconds until what waits for ``model`` is computed; None if that is not known."""
        return self._scheduler.backlog_s(model)

    async def drain_model(self, model: str) -> None:
        """Wait until nothing that needs ``model`` waits or is computed; nothing more must be admitted."""
        waiting = [
            one.answer
            for one in self._waiting.values()
            if one.request.model == model or self._needs(one.request, model)
        ]
        if waiting:
            await asyncio.wait(waiting)

    def _needs(self, request: Request, model: str) -> bool:
        """Whether a family's ``request`` can be computed by nothing but ``model``."""
        members = self._members
        return members.may_compute(request) and not members.may_compute(request, but=model)

    async def drain(self) -> None:
        """Refuse what comes from now on, and wait until what was admitted is answered."""
        self.draining.set()
        self._turns.next_of_all()  # who is refused lets the next one try
        self._check_drained()
        await self._drained.wait()

    def close(self) -> None:
        """Forget the timer; call it when no worker is left."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self, name: str, size: int) -> None:
        """Whether a request of ``size`` bytes to the model called ``name`` may be offered.

        Raises:
            RefusalError: if it may not.
        """
        if self.draining.is_set():
            raise RefusalError(Reason.DRAINING, "the server is shutting down; use another one")
        model = find(self._models, name)
        assert model is not None, "the wire checks the name"
        if not model.takes_requests:
            text = f"model {name} is not ready: {model.state_reason}"
            raise RefusalError(Reason.MODEL_NOT_READY, text)
        if self._bytes + size > self._max_bytes:
            raise RefusalError(
                Reason.QUEUE_FULL,
                f"requests of {self._bytes} bytes are being answered, {size} more came, the limit is "
                f"{self._max_bytes:.0f}",
                retry_after_s(self._scheduler, name),
            )

    def _check_drained(self) -> None:
        if self.draining.is_set() and not self._waiting:
            self._drained.set()

    # What the pool tells.

    def model_measured(
        self,
        worker: str,
        model: str,
        latency: Latency,
        device_name: str,
        streams: Streams | None = None,
    ) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        size = self._scheduler.model_measured(model, latency, device_name, streams)
        waits = "worth waiting for" if size.waits else "not worth waiting for"
        text = "worker %s: batches of %s have up to %d rows, more are %s"
        fields = {"worker": worker, "model": model, "batch_rows": size.rows, "waits": size.waits}
        _log.info(text, worker, model, size.rows, waits, extra=fields)
        if streams is not None and streams.images > 1:
            images, speed_up = streams
            text = "worker %s: side by side, %d images of %s at a time take %.2f times as long as one alone"
            fields = {"worker": worker, "model": model, "images": images, "times": speed_up}
            _log.info(text, worker, images, model, speed_up, extra=fields)

    def worker_ready(
        self, worker: str, models: frozenset[str], device_name: str = "", lanes: int = 1
    ) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        self._scheduler.worker_ready(worker, models, device_name, lanes)
        self._pump()

    def batch_done(self, worker: str, batch_id: int, report: Report) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        # A batch of which only a part was computed tells nothing of how long batches take, and pictures
        # take their own time.
        is_part = report.expired or report.refused
        took_s = (report.ended_ns - report.began_ns - report.decode_ns) * 1e-9
        batch = self._scheduler.batch_done(
            worker, batch_id, time.monotonic(), None if is_part else took_s
        )
        logits = self._pool.take_output(batch)
        try:
            if not self._scheduler.is_empty:
                self._pump()  # before the answers: the worker is idle
        finally:
            requests = [self._waiting.get(request.id) for request in batch.requests]
            self._answer(batch, requests, logits, report)
        if is_part:
            self._observer.batch_ended(batch, report, requests)  # before it is told who was refused
        else:
            # Behind what the answers have set going: no caller waits while they are counted.
            self._loop.call_soon(self._observer.batch_ended, batch, report, requests)

    def batch_decoding(self, worker: str, batch_id: int | None = None) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        self._scheduler.worker_alive(worker, time.monotonic(), batch_id)

    def batch_failed(self, worker: str, batch_id: int, error: str, report: Report) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        batch = self._scheduler.batch_done(worker, batch_id, time.monotonic(), None)
        text = f"model {batch.model} failed on this batch: {error}"
        requests = [self._waiting.get(request.id) for request in batch.requests]
        for pending in requests:
            if pending is not None:
                pending.refuse(RefusalError(Reason.MODEL_FAILURE, text, worker=worker))
        self._observer.batch_ended(batch, report, requests)
        self._pump()

    def worker_lost(self, worker: str) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        text = f"{self.limits.max_attempts} workers died while they computed this request"
        for request in self._scheduler.worker_lost(worker):
            if (pending := self._waiting.get(request.id)) is not None:
                pending.refuse(RefusalError(Reason.WORKER_LOST, text, worker=worker))
        for pending in self._waiting.values():
            if pending.worker == worker:
                pending.worker = ""
        self._observer.worker_lost(worker)
        self._pump()

    def model_failed(self, model: str) -> None:
        """See :class:`rootserve.server.workers.pool.PoolEvents`."""
        failed = self._models.get(model)
        assert failed is not None
        why = "; ".join(f"{worker}: {why}" for worker, why in failed.failures.items())
        text = f"model {model} is not ready: {why}"
        for request in self._scheduler.drop_model(model):
            self._refuse_waiting(request, Reason.MODEL_NOT_READY, text)

    def models_changed(self) -> None:
        """Which models there are to compute families may have changed."""
        for request in (*self._members.update(), *self._withdrawn()):
            text = f"no variant of {request.model} that this request allows is ready any more"
            self._refuse_waiting(request, Reason.MODEL_NOT_READY, text)

    def _withdrawn(self) -> list[Request]:
        """Requests of families that waited, and that nothing is left to compute."""
        return [
            one.request
            for one in self._waiting.values()
            if not (one.worker or one.answer.done() or self._members.may_compute(one.request))
            and self._scheduler.cancel(one.request)
        ]

    # Batches.

    def _pump(self) -> None:
        """Do what the scheduler decides."""
        now = time.monotonic()
        decisions = self._scheduler.poll(now)
        for batch in decisions.dispatches:
            requests = [self._waiting[request.id] for request in batch.requests]
            for pending in requests:
                pending.worker = batch.worker
            self._pool.handles[batch.worker].run(batch, requests)
        for worker in decisions.hung:
            self._pool.kill(worker)
        for request in decisions.expired:
            self._refuse_waiting(request, Reason.DEADLINE_EXPIRED, _EXPIRED)
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

    def _answer(
        self,
        batch: Batch,
        requests: list[Pending | None],
        logits: bytes,
        report: Report,
    ) -> None:
        formed_ns = int(batch.formed_s * 1e9)
        refused = dict(report.refused)
        told = self._of_family(batch)
        row_bytes = len(logits) // batch.rows
        offset = 0
        for position, (request, pending) in enumerate(zip(batch.requests, requests, strict=True)):
            length = request.rows * row_bytes
            share = logits[offset : offset + length]
            offset += length
            if pending is None or pending.answer.done():
                continue  # cancelled: the answer is for nobody
            if position in report.expired:
                pending.refuse(RefusalError(Reason.DEADLINE_EXPIRED, _EXPIRED))
                continue
            if position in refused:
                text = f"tensor {ENCODED_NAME}: {refused[position]}"
                pending.refuse(RefusalError(Reason.INVALID_REQUEST, text))
                continue
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
                version=report.version,
                weights=report.weights,
                generation=report.generation,
                **told,
            )
            pending.answer.set_result(Answer(share, timeline))

    def _of_family(self, batch: Batch) -> dict[str, Any]:
        """What the timelines of a family's batch tell besides."""
        if batch.requests[0].model == batch.model:
            return {}
        accuracy = self._models[batch.model].card.accuracy
        predicted_ns = round((batch.predicted_s or 0.0) * 1e9)
        return {"variant": batch.model, "accuracy": accuracy, "predicted_ns": predicted_ns}

    def _refuse_waiting(self, request: Request, reason: Reason, text: str) -> None:
        """Refuse a request that the scheduler has taken out of its queue."""
        pending = self._waiting.get(request.id)
        if pending is not None:
            pending.left_queue_ns = time.monotonic_ns()
            pending.refuse(RefusalError(reason, text))
