"""Few requests are computed on all processors, many side by side, and nothing flips at the edge."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.core.arrangement import Arrangement, Streams, kind_beside
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Batch, Limits, Member, Scheduler

LATENCY = [(1, 0.001), (8, 0.006)]
SPEED_UP = 1.6


def scheduler(streams: int = 2, speed_up: float = SPEED_UP, lanes: int = 2) -> Scheduler:
    made = Scheduler(Limits(max_batch_rows=8, lead_s=None, hang_s=1.0))
    made.model_measured("m", LATENCY, "", Streams(streams, speed_up))
    made.model_measured("n", LATENCY, "", Streams(1))
    made.worker_ready("w", ["m", "n"], lanes=lanes)
    return made


class Callers:
    """Ask, and ask again as soon as they are answered; the worker computes in the order it is told."""

    def __init__(self, made: Scheduler) -> None:
        self.scheduler = made
        self.now = 0.0
        self.next_id = 0
        self.held: list[Batch] = []
        self.given: list[Batch] = []

    def ask(self, count: int = 1, model: str = "m") -> None:
        for _ in range(count):
            self.next_id += 1
            self.now += 1e-6
            request = Request(self.next_id, model, 1, self.now)
            assert self.scheduler.offer(request, self.now).declined is None
        self.poll()

    def crowded(self) -> None:
        """There have been many."""
        self.scheduler._batching.arrangement.crowd.others = 100.0
        self.scheduler._batching.arrangement.crowd._last_s = self.now

    def poll(self) -> None:
        batches = self.scheduler.poll(self.now).dispatches
        self.held += batches
        self.given += batches

    def answer(self) -> Batch:
        """The oldest batch is done."""
        self.now += 0.001
        batch = self.held.pop(0)
        self.scheduler.batch_done("w", batch.id, self.now, 0.001)
        self.poll()
        return batch

    def go_on(self, answers: int) -> list[Batch]:
        """Until so many batches were answered; what was given meanwhile."""
        before = len(self.given)
        for _ in range(answers):
            self.ask(len(self.answer().requests))
        return self.given[before:]


def test_one_caller_has_all_processors_and_many_go_side_by_side_and_back() -> None:
    callers = Callers(scheduler())
    callers.ask()
    assert not any(batch.beside for batch in callers.go_on(20))
    callers.ask(15)
    later = callers.go_on(20)[-10:]
    assert all(batch.beside for batch in later)
    while callers.held:
        callers.answer()
    callers.ask()
    assert not any(batch.beside for batch in callers.go_on(60)[-10:])


def test_side_by_side_two_batches_are_under_way_and_then_as_many_as_fill_the_streams() -> None:
    callers = Callers(scheduler(streams=4, lanes=4))
    callers.crowded()
    for expected in (1, 2, 3, 4, 4):
        callers.ask()
        assert len(callers.held) == expected


def test_no_batch_is_more_than_half_of_what_there_is() -> None:
    made = Scheduler(Limits(max_batch_rows=32, lead_s=None))
    made.model_measured("m", [(1, 0.001), (32, 0.02)], "", Streams(2, SPEED_UP))
    made.worker_ready("w", ["m"], lanes=2)
    callers = Callers(made)
    callers.crowded()
    callers.ask(40)
    assert [batch.rows for batch in callers.held] == [20, 20]
    callers.answer()
    callers.ask(12)
    assert [batch.rows for batch in callers.held] == [20, 12]


def test_small_batches_do_not_line_up_behind_large_ones() -> None:
    callers = Callers(scheduler())
    callers.crowded()
    callers.ask(8)
    for rows in ([8], [8], [8], [8, 4], [8, 4], [8, 4]):
        callers.ask()
        assert [batch.rows for batch in callers.held] == rows
    callers.answer()
    assert [batch.rows for batch in callers.held] == [4, 2]


def test_a_batch_that_fills_the_streams_leaves_room_for_others() -> None:
    arrangement = Arrangement()
    arrangement.measured("m", "", Streams(2, SPEED_UP))
    beside = [arrangement.goes_beside("m", "", rows) for rows in (1, 2, 3, 4, 5)]
    assert beside == [False, False, False, True, True]


def test_an_engine_that_computes_one_batch_at_a_time_gets_them_so() -> None:
    callers = Callers(scheduler())
    callers.ask(3, "n")
    callers.ask(3, "n")
    assert [batch.beside for batch in callers.held] == [False]


def test_one_that_needs_the_worker_alone_is_not_passed_over_for_ever() -> None:
    callers = Callers(scheduler())
    callers.crowded()
    callers.ask()
    callers.ask()
    callers.ask(1, "n")
    callers.ask()
    assert [batch.model for batch in callers.held] == ["m", "m"]
    callers.answer()
    assert [batch.model for batch in callers.held] == ["m"], "another m would go before n"
    callers.answer()
    assert [batch.model for batch in callers.held] == ["n"]


def test_a_family_that_waits_for_the_worker_is_not_passed_over_for_ever() -> None:
    made = scheduler()
    made.family_served("f", [Member("m", 0.9)])
    callers = Callers(made)
    callers.crowded()
    callers.ask()
    callers.ask(1, "f")
    callers.ask()
    assert [batch.requests[0].model for batch in callers.held] == ["m"]
    callers.answer()
    (batch,) = callers.held
    assert batch.requests[0].model == "f"
    assert not batch.beside


def test_all_that_was_under_way_when_a_worker_died_is_computed_again_alone() -> None:
    callers = Callers(scheduler())
    callers.crowded()
    callers.ask()
    callers.ask()
    assert len(callers.held) == 2
    made = callers.scheduler
    assert made.worker_lost("w") == ()
    callers.held.clear()
    made.worker_ready("w", ["m", "n"], lanes=2)
    callers.ask()  # not under suspicion, and behind
    assert [batch.beside for batch in callers.held] == [False, False], "one, and one ahead"
    assert [batch.rows for batch in callers.held] == [1, 1]
    callers.answer()
    assert not callers.held[0].beside
    callers.answer()
    assert callers.held[-1].beside


def lost_beside_another() -> tuple[Scheduler, Batch, Batch]:
    """Two workers compute side by side, and one dies: what the other has, and what is under suspicion."""
    made = scheduler()
    made.worker_ready("v", ["m"], lanes=2)
    Callers(made).crowded()
    for number in (1, 2):
        made.offer(Request(number, "m", 1, 0.001 * number, priority=2), 0.001 * number)
        made.poll(0.001 * number)
    (one,), (other,) = (tuple(worker.batches.values()) for worker in made._workers)
    assert one.beside
    assert other.beside
    assert made.worker_lost(other.worker) == ()
    return made, one, other


def test_what_a_worker_may_have_died_of_does_not_join_others() -> None:
    made, one, other = lost_beside_another()
    assert made.poll(0.003).dispatches == ()
    made.batch_done(one.worker, one.id, 0.004, 0.001)
    (again,) = made.poll(0.004).dispatches
    assert again.requests[0].id == other.requests[0].id
    assert not again.beside


def test_nor_does_it_in_the_place_of_one_that_would_be_late() -> None:
    made, one, other = lost_beside_another()
    made.offer(Request(3, "m", 1, 0.003, deadline_s=0.0031, priority=1), 0.003)
    for batch in made.poll(0.003).dispatches:
        assert [request.id for request in batch.requests] == [3]
    assert made.rows_queued("m") == 1
    assert one.worker != other.worker


def test_a_batch_hangs_whatever_goes_on_beside_it() -> None:
    callers = Callers(scheduler())
    callers.crowded()
    callers.ask()
    callers.ask()
    stuck = callers.held.pop(0)
    for _ in range(10):
        callers.now += 0.09
        assert callers.scheduler.poll(callers.now).hung == ()
        callers.answer()
        callers.ask()
    callers.now = 1.1
    callers.scheduler.worker_alive("w", callers.now, callers.held[-1].id)
    assert callers.scheduler.poll(callers.now).hung == ("w",)
    assert stuck.id != callers.held[-1].id


def test_what_batches_take_side_by_side_is_learned_apart() -> None:
    callers = Callers(scheduler())
    table = callers.scheduler.durations
    alone = table.predict("m", 1)
    beside = table.predict("m", 1, kind_beside(""))
    assert alone == pytest.approx(0.001)
    assert beside == pytest.approx(SPEED_UP * 0.001)
    callers.ask()
    batch = callers.held.pop()
    callers.scheduler.batch_done("w", batch.id, 0.004, 0.004)
    assert table.predict("m", 1) > 0.0011  # type: ignore[operator]
    assert table.predict("m", 1, kind_beside("")) == beside


@given(
    st.lists(st.floats(0.31, 0.59, exclude_min=True, exclude_max=True), min_size=1, max_size=200),
    st.booleans(),
)
def test_between_the_thresholds_nothing_flips(found: list[float], many: bool) -> None:
    arrangement = Arrangement()
    arrangement.measured("m", "", Streams(2, 1.6))
    arrangement.crowd.others = 5.0 if many else 0.0
    assert arrangement.goes_beside("m", "", 1) == many
    for others in found:
        arrangement.crowd.others = others
        assert arrangement.goes_beside("m", "", 1) == many


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 40)), min_size=1))
def test_the_average_is_within_what_was_found(arrivals: list[tuple[float, float]]) -> None:
    arrangement, now = Arrangement(), 0.0
    for pause, others in arrivals:
        now += pause
        arrangement.crowd.came(others, now)
    found = [others for _, others in arrivals]
    assert min(found) - 1e-9 <= arrangement.crowd.others <= max(found) + 1e-9
    arrangement.crowd.came(0.0, now + 10.0)
    assert math.isclose(arrangement.crowd.others, 0.0, abs_tol=1e-6), "long ago counts little"
