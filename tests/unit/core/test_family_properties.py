"""Families beside single variants: random arrivals, cancels and worker losses, against a ledger.

Workers take exactly as long as is predicted, so that every promise has to be kept.
"""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rootserve.server.core.decisions import Batch, Declined
from rootserve.server.core.family import Member
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.limits import Limits
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Scheduler

FAMILY = "family"
MEMBERS = (
    Member("quick", 0.80),
    Member("middle", 0.85),
    Member("slow", 0.90),
    # Never worth it: slower than another one that is more accurate.
    Member("dominated", 0.82),
)
ACCURACIES = {member.variant: member.accuracy for member in MEMBERS}
ROW_S = {"quick": 0.001, "middle": 0.0025, "slow": 0.004, "dominated": 0.005}
START_S = 0.002


def known_latencies() -> LatencyTable:
    """A table that is sure of what it knows, so that its bounds are these times."""
    rows = [
        {"kind": "processor", "model": variant, "rows": rows, "p50_s": seconds, "p99_s": seconds}
        for variant, row_s in ROW_S.items()
        for rows in (1, 2, 4, 8)
        for seconds in [START_S + rows * row_s]
    ]
    table = LatencyTable(hand_over_s=0.0)
    table.read({"latency": rows})
    return table


class FamilyMachine(RuleBasedStateMachine):
    @initialize(workers=st.integers(1, 3), ahead=st.integers(0, 1), explain=st.booleans())
    def set_up(self, workers: int, ahead: int, explain: bool) -> None:
        self.limits = Limits(
            max_batch_rows=8,
            max_queue_rows=64,
            lead_s=None,
            hang_s=1e9,
            patience_s=0.5,
            batches_ahead=ahead,
            explain=explain,
        )
        self.scheduler = Scheduler(self.limits, table=known_latencies())
        self.scheduler.family_served(FAMILY, MEMBERS)
        self.now = 100.0
        self.next_id = 1
        self.waiting: dict[int, Request] = {}
        self.running: dict[str, list[tuple[float, Batch]]] = {}
        self.cancelled: set[int] = set()
        self.finished: set[int] = set()
        self.promises_hold = True
        """Whether nothing has happened that no prediction could know of."""
        for index in range(workers):
            self.start_worker(index)

    def start_worker(self, index: int) -> None:
        self.running[f"w{index}"] = []
        self.scheduler.worker_ready(f"w{index}", ROW_S, "processor")

    def finish(self, request_id: int) -> None:
        assert request_id not in self.finished, "answered twice"
        self.finished.add(request_id)

    @rule(
        rows_and_count=st.tuples(st.integers(1, 4), st.integers(1, 12)),
        slack=st.sampled_from([math.inf, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.4]),
        floor=st.sampled_from([0.0, 0.0, 0.81, 0.85, 0.9, 0.95]),
        allowed=st.sampled_from(
            [frozenset[str](), frozenset({"slow", "dominated"}), frozenset({"middle"})]
        ),
        whose=st.tuples(st.sampled_from(["one", "two"]), st.integers(1, 2)),
    )
    def offer(
        self,
        rows_and_count: tuple[int, int],
        slack: float,
        floor: float,
        allowed: frozenset[str],
        whose: tuple[str, int],
    ) -> None:
        rows, count = rows_and_count
        caller, priority = whose
        for _ in range(count):
            request = Request(
                self.next_id,
                FAMILY,
                rows,
                self.now,
                self.now + slack,
                priority,
                floor=floor,
                allowed=allowed,
                caller=caller,
            )
            self.next_id += 1
            offered = self.scheduler.offer(request, self.now)
            able = [
                variant
                for variant, accuracy in ACCURACIES.items()
                if accuracy >= floor and (not allowed or variant in allowed)
            ]
            assert (offered.declined is Declined.UNSERVED) == (not able)
            assert (offered.declined is Declined.INFEASIBLE) == (offered.infeasible is not None)
            if offered.infeasible is not None:
                assert math.isfinite(slack), "what has no deadline needs no promise"
                earliest_s, fitting, retry_s = offered.infeasible
                assert earliest_s > request.deadline_s or not self.running
                assert fitting is None or fitting < floor
                assert retry_s >= 0.0
            if offered.declined is None:
                self.waiting[request.id] = request
        self.poll()

    @rule(variant=st.sampled_from(sorted(ROW_S)), rows=st.integers(1, 8))
    def offer_to_a_single_variant(self, variant: str, rows: int) -> None:
        request = Request(self.next_id, variant, rows, self.now)
        self.next_id += 1
        if self.scheduler.offer(request, self.now).declined is None:
            self.waiting[request.id] = request
        self.poll()

    def poll(self) -> None:
        decisions = self.scheduler.poll(self.now)
        assert decisions.wake_s > self.now, "asks to be polled again at once"
        for request in decisions.expired:
            del self.waiting[request.id]
            self.finish(request.id)
            assert not self.promises_hold, "expired, although it was promised"
        for batch in decisions.dispatches:
            self.check(batch)
            for request in batch.requests:
                del self.waiting[request.id]
            assert batch.predicted_s is not None
            held = self.running[batch.worker]
            began_s = held[-1][0] if held else self.now
            held.append((began_s + batch.predicted_s, batch))
            assert len(held) <= 1 + self.limits.batches_ahead
        idle = [worker for worker, batches in self.running.items() if not batches]
        assert not (idle and self.waiting and self.promises_hold), "idle while something waits"

    def check(self, batch: Batch) -> None:
        assert 0 < batch.rows <= self.limits.max_batch_rows
        assert batch.rows == sum(request.rows for request in batch.requests)
        of_family = {request.model for request in batch.requests} == {FAMILY}
        assert of_family or {request.model for request in batch.requests} == {batch.model}
        assert (batch.choice is not None) == (of_family and self.limits.explain)
        for request in batch.requests:
            assert request.id not in self.cancelled, "computed for nobody"
            assert request.floor <= ACCURACIES[batch.model], "not accurate enough"
            assert not request.allowed or batch.model in request.allowed, "not one of those"
            if request.attempts:
                assert len(batch.requests) == 1, "computed again alone"

    @rule(passed=st.sampled_from([0.0005, 0.002, 0.01, 0.05, 0.3]))
    def time_passes(self, passed: float) -> None:
        self.go_to(self.now + passed)

    def go_to(self, until: float) -> None:
        """Everything that ends up to then ends when it was predicted to."""
        while True:
            ends = [(batches[0][0], worker) for worker, batches in self.running.items() if batches]
            if not ends or min(ends)[0] > until:
                break
            self.now, worker = min(ends)
            _, batch = self.running[worker].pop(0)
            self.scheduler.batch_done(worker, batch.id, self.now, None)
            for request in batch.requests:
                if request.id in self.cancelled:
                    continue
                self.finish(request.id)
                late = self.now > request.deadline_s + 1e-6
                assert not (late and self.promises_hold), "late, although it was promised"
            self.poll()
        self.now = max(self.now, until)
        self.poll()

    @precondition(lambda self: self.waiting or any(self.running.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        running = [
            request
            for batches in self.running.values()
            for _, batch in batches
            for request in batch.requests
            if request.id not in self.cancelled
        ]
        candidates = [*self.waiting.values(), *running]
        if not candidates:
            return
        request = data.draw(st.sampled_from(candidates))
        assert self.scheduler.cancel(request) == (request.id in self.waiting)
        self.cancelled.add(request.id)
        self.waiting.pop(request.id, None)
        self.finish(request.id)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def lose_worker(self, data: st.DataObject) -> None:
        self.promises_hold = False
        worker = data.draw(st.sampled_from(sorted(self.running)))
        had = self.running.pop(worker)
        lost = {request.id for request in self.scheduler.worker_lost(worker)}
        for position, (_, batch) in enumerate(had):
            for request in batch.requests:
                blame = 1 if position == 0 else 0
                if request.id in self.cancelled:
                    assert request.id not in lost
                elif request.attempts + blame >= self.limits.max_attempts:
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
        self.poll()

    @invariant()
    def rows_are_kept(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for model in (FAMILY, *ROW_S):
            rows = sum(r.rows for r in self.waiting.values() if r.model == model)
            assert self.scheduler.rows_queued(model) == rows

    def teardown(self) -> None:
        """Whatever happened, everything ends once workers work and time goes by."""
        if not hasattr(self, "scheduler"):
            return
        if not self.running:
            self.start_worker(0)
        for _ in range(300):
            self.go_to(self.now + 0.1)
            if not self.waiting and not any(self.running.values()):
                break
        assert not self.waiting
        assert self.scheduler.is_empty


TestFamily = FamilyMachine.TestCase
TestFamily.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)


def test_what_is_left_after_a_first_batch_is_still_kept() -> None:
    """A layout made anew of what is left, in other batches, would be too late; the old one is not."""
    machine = FamilyMachine()
    machine.set_up(workers=2, ahead=0, explain=False)
    machine.offer_to_a_single_variant(rows=4, variant="dominated")
    machine.offer_to_a_single_variant(rows=7, variant="quick")
    slow, middle, every = frozenset({"slow", "dominated"}), frozenset({"middle"}), frozenset[str]()
    machine.offer((1, 4), 0.03, 0.0, slow, ("one", 2))
    machine.offer((1, 6), 0.1, 0.9, slow, ("two", 2))
    machine.offer_to_a_single_variant(rows=2, variant="quick")
    machine.offer((3, 1), 0.1, 0.9, every, ("one", 2))
    machine.offer((3, 5), 0.05, 0.85, middle, ("two", 2))
    machine.offer((4, 6), 0.1, 0.0, middle, ("two", 1))
    machine.offer((2, 1), 0.4, 0.9, every, ("one", 1))
    assert any(request.deadline_s < math.inf for request in machine.waiting.values())
    machine.teardown()  # nothing expires, and nothing is late
