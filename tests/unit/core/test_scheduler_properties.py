"""Random arrivals, sizes, cancels, deadlines and worker losses, checked against a ledger.

Workers have one lane or several. What a worker is told to compute alone shares its processors with nothing;
what it is told to compute side by side has the threads of its streams, however many batches there are.
"""

import copy
import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rootserve.server import core_is
from rootserve.server.core.arrangement import Streams
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Batch, Limits, Scheduler

MODELS = ("a", "b")


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        max_delay_s=st.sampled_from([0.0, 0.0, 0.005, 0.1]),
        workers=st.integers(1, 3),
        ahead=st.integers(0, 2),
        lead_s=st.sampled_from([None, None, 0.002]),
        priority_age_s=st.sampled_from([math.inf, math.inf, 0.0137, 0.0]),
        lanes=st.sampled_from([1, 1, 2, 4]),
        streams=st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4])),
        speed_up=st.sampled_from([1.0, 1.7, 5.0]),
    )
    def set_up(  # noqa: PLR0917 - each is drawn
        self,
        max_delay_s: float,
        workers: int,
        ahead: int,
        lead_s: float | None,
        priority_age_s: float,
        lanes: int,
        streams: tuple[int, int],
        speed_up: float,
    ) -> None:
        self.lanes = lanes
        if lanes > 1:
            lead_s = None  # workers with lanes are processors', which are not given batches early
        self.limits = Limits(
            max_batch_rows=6,
            max_delay_s=max_delay_s,
            max_queue_rows=12,
            batches_ahead=ahead,
            lead_s=lead_s,
            priority_age_s=priority_age_s,
            hang_s=1e9,
        )
        self.scheduler = Scheduler(self.limits)
        for model, images in zip(MODELS if lanes > 1 else (), streams, strict=False):
            latency = [(1, 0.001), (6, 0.003)]
            self.scheduler.model_measured(model, latency, "", Streams(images, speed_up))
        self.now = 100.0
        self.next_id = 1
        self.waiting: dict[int, Request] = {}
        self.running: dict[str, list[Batch]] = {}
        self.cancelled: set[int] = set()
        self.finished: set[int] = set()
        self.settled = False
        """Whether nobody was told to poll since the poll at ``polled_s``."""
        self.polled_s = self.now
        for index in range(workers):
            self.start_worker(index)

    def start_worker(self, index: int) -> None:
        self.settled = False
        self.running[f"w{index}"] = []
        self.scheduler.worker_ready(f"w{index}", MODELS, lanes=self.lanes)

    @staticmethod
    def under_way(held: list[Batch]) -> list[Batch]:
        """What a worker computes at a time: the first batch that it has, with those beside it."""
        if not held or not held[0].beside:
            return held[:1]
        return [batch for batch in held if batch.beside]

    def rank(self, request: Request) -> tuple[float, float]:
        """A priority is worth so much time; infinitely much, it goes before all else."""
        age_s = self.limits.priority_age_s
        if math.isinf(age_s):
            return request.priority, request.arrived_s
        return request.arrived_s + request.priority * age_s, 0.0

    def finish(self, request_id: int) -> None:
        assert request_id not in self.finished, "answered twice"
        self.finished.add(request_id)

    @rule(
        model=st.sampled_from(MODELS),
        rows=st.integers(1, 6),
        patience=st.sampled_from([math.inf, 0.001, 0.05]),
        priority=st.integers(1, 2),
    )
    def offer(self, model: str, rows: int, patience: float, priority: int) -> None:
        request = Request(self.next_id, model, rows, self.now, self.now + patience, priority)
        self.next_id += 1
        queued = sum(
            other.rows
            for other in self.waiting.values()
            if (other.model, other.priority) == (model, priority)
        )
        offered = self.scheduler.offer(request, self.now)
        refused = offered.declined is not None
        assert refused == (queued + rows > self.limits.max_queue_rows)
        if not refused:
            self.waiting[request.id] = request
            self.settled = self.settled and not offered.poll
            if self.settled and core_is() == "python":  # which cannot be copied
                decisions = copy.deepcopy(self.scheduler).poll(self.polled_s)
                assert not decisions.dispatches, "it did not have to wait"

    @rule(passed=st.sampled_from([0.0, 0.0005, 0.004, 0.06, 1.0]))
    def poll(self, passed: float) -> None:
        self.now += passed
        decisions = self.scheduler.poll(self.now)
        assert not (self.settled and passed == 0.0 and decisions.dispatches), (
            "it did not have to wait"
        )
        self.settled, self.polled_s = True, self.now
        for request in decisions.expired:
            assert self.waiting.pop(request.id).deadline_s <= self.now
            self.finish(request.id)
        remaining = dict(self.waiting)
        for batch in decisions.dispatches:
            assert 0 < batch.rows <= self.limits.max_batch_rows
            assert {request.model for request in batch.requests} == {batch.model}
            order = [self.rank(request) for request in batch.requests]
            assert order == sorted(order), "by priority, then in order of arrival"
            for priority in (1, 2):
                ids = [each.id for each in batch.requests if each.priority == priority]
                assert ids == sorted(ids), "in order of arrival"
            if any(request.attempts for request in batch.requests):
                assert len(batch.requests) == 1, "computed again alone"
                assert not batch.beside, "computed again alone"
            for request in batch.requests:
                assert request.deadline_s > self.now, "started after its deadline"
                assert request.id not in self.cancelled, "computed for nobody"
                del self.waiting[request.id]
            held = self.running[batch.worker]
            assert batch.beside or not any(other.beside for other in held), (
                "alone, while others are computed"
            )
            assert not (batch.beside and self.lanes == 1)
            held.append(batch)
            assert len(held) <= max(self.lanes, 1 + self.limits.batches_ahead)
        for batch in decisions.dispatches:
            first = min(map(self.rank, batch.requests))
            for request in batch.requests:
                del remaining[request.id]
            overtaken = [
                request
                for request in remaining.values()
                if request.model == batch.model and self.rank(request) < first
            ]
            # One with a deadline may be too late even alone, and go when nothing else of its model waits.
            assert all(request.deadline_s < math.inf for request in overtaken), (
                "one that comes later went first"
            )
            for request in self.waiting.values():
                due = request.arrived_s + self.limits.max_delay_s <= self.now
                if overtaken or request.model == batch.model:
                    continue
                assert not due or first <= self.rank(request), "a queue that comes later went first"
        idle = [worker for worker, batches in self.running.items() if not batches]
        for request in self.waiting.values():
            overdue = request.arrived_s + self.limits.max_delay_s <= self.now
            assert not (idle and overdue), "a free worker idles past the maximal delay"
        if self.waiting and idle:
            assert decisions.wake_s > self.now, "asks to be polled again at once"
            assert decisions.wake_s <= min(
                request.arrived_s + self.limits.max_delay_s for request in self.waiting.values()
            )

    @precondition(lambda self: any(self.running.values()))
    @rule(data=st.data(), failed=st.booleans())
    def batch_done(self, data: st.DataObject, failed: bool) -> None:
        self.settled = False
        workers = sorted(worker for worker, batches in self.running.items() if batches)
        worker = data.draw(st.sampled_from(workers))
        batch = data.draw(st.sampled_from(self.under_way(self.running[worker])))
        self.running[worker].remove(batch)
        self.now += 0.001
        compute_s = None if failed else 0.001 * batch.rows
        assert self.scheduler.batch_done(worker, batch.id, self.now, compute_s) == batch
        for request in batch.requests:
            if request.id not in self.cancelled:
                self.finish(request.id)

    @precondition(lambda self: self.waiting or any(self.running.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.settled = False
        running = [
            request
            for batches in self.running.values()
            for batch in batches
            for request in batch.requests
            if request.id not in self.cancelled
        ]
        candidates = [*self.waiting.values(), *running]
        if not candidates:
            return
        request = data.draw(st.sampled_from(candidates))
        self.scheduler.cancel(request)
        self.cancelled.add(request.id)
        self.waiting.pop(request.id, None)
        self.finish(request.id)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def lose_worker(self, data: st.DataObject) -> None:
        self.settled = False
        worker = data.draw(st.sampled_from(sorted(self.running)))
        had = self.running.pop(worker)
        lost = {request.id for request in self.scheduler.worker_lost(worker)}
        blamed = {batch.id for batch in self.under_way(had)}
        for batch in had:
            for request in batch.requests:
                attempts = request.attempts + (1 if batch.id in blamed else 0)
                if request.id in self.cancelled:
                    assert request.id not in lost
                elif attempts >= self.limits.max_attempts:
                    assert request.id in lost
                    self.finish(request.id)
                else:
                    assert request.id not in lost
                    self.waiting[request.id] = request

    @precondition(lambda self: len(self.running) < 3)
    @rule()
    def replace_worker(self) -> None:
        free = next(index for index in range(3) if f"w{index}" not in self.running)
        self.start_worker(free)

    @invariant()
    def rows_are_kept(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for model in MODELS:
            rows = sum(r.rows for r in self.waiting.values() if r.model == model)
            assert self.scheduler.rows_queued(model) == rows

    def teardown(self) -> None:
        """Whatever happened, everything ends once workers work and time goes by."""
        if not hasattr(self, "scheduler"):
            return
        if not self.running:
            self.start_worker(0)
        for _ in range(500):
            self.poll(1.0)
            for worker, batches in self.running.items():
                while batches:
                    batch = batches.pop(0)
                    self.scheduler.batch_done(worker, batch.id, self.now, 0.001)
                    for request in batch.requests:
                        if request.id not in self.cancelled:
                            self.finish(request.id)
            if not self.waiting:
                break
        assert not self.waiting
        assert self.scheduler.is_empty


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
