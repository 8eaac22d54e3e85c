import math

import pytest

from rootserve.server.core.family import Member
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Batch, Declined, Limits, Scheduler


def request(
    number: int,
    rows: int = 1,
    at: float = 0.0,
    deadline: float = math.inf,
    model: str = "m",
    priority: int = 1,
) -> Request:
    return Request(number, model, rows, at, deadline, priority)


def scheduler(workers: int = 1, **limits: object) -> Scheduler:
    made = Scheduler(Limits(**{"max_batch_rows": 8, "max_queue_rows": 16, **limits}))  # type: ignore[arg-type]
    for index in range(workers):
        made.worker_ready(f"w{index}", ["m", "n"])
    return made


def ids(batch: Batch) -> list[int]:
    return [request.id for request in batch.requests]


def test_an_idle_worker_gets_what_waits_at_once_when_there_is_no_delay() -> None:
    s = scheduler()
    assert s.offer(request(1), 0.0).declined is None
    assert s.offer(request(2), 0.0).declined is None
    (batch,) = s.poll(0.0).dispatches
    assert ids(batch) == [1, 2]
    assert batch.worker == "w0"


def test_a_batch_waits_for_the_maximal_delay_of_its_oldest_request() -> None:
    s = scheduler(max_delay_s=0.010)
    s.offer(request(1, at=0.0), 0.0)
    decisions = s.poll(0.0)
    assert decisions.dispatches == ()
    assert decisions.wake_s == pytest.approx(0.010)
    s.offer(request(2, at=0.009), 0.009)
    assert s.poll(0.009).dispatches == ()
    (batch,) = s.poll(0.010).dispatches
    assert ids(batch) == [1, 2]


def test_a_full_batch_does_not_wait() -> None:
    s = scheduler(max_delay_s=1.0)
    for number in range(3):
        s.offer(request(number, rows=4), 0.0)
    (batch,) = s.poll(0.0).dispatches
    assert ids(batch) == [0, 1]
    assert s.rows_queued("m") == 4


def test_a_request_is_never_split_and_none_overtakes() -> None:
    s = scheduler(batches_ahead=0)
    s.offer(request(1, rows=5), 0.0)
    s.offer(request(2, rows=5), 0.0)
    s.offer(request(3, rows=1), 0.0)
    (batch,) = s.poll(0.0).dispatches
    assert ids(batch) == [1]


def test_batches_hold_one_model_and_the_oldest_head_goes_first() -> None:
    s = scheduler(workers=2)
    s.offer(request(1, at=0.2, model="m"), 0.2)
    s.offer(request(2, at=0.1, model="n"), 0.2)
    first, second = s.poll(0.2).dispatches
    assert (first.model, second.model) == ("n", "m")


def test_the_queue_limit_counts_rows() -> None:
    s = scheduler(workers=0)
    assert s.offer(request(1, rows=8), 0.0).declined is None
    assert s.offer(request(2, rows=8), 0.0).declined is None
    assert s.offer(request(3, rows=1), 0.0).declined is Declined.QUEUE_FULL
    assert s.offer(request(4, rows=1, model="n"), 0.0).declined is None


def test_more_rows_than_a_batch_may_have_are_refused() -> None:
    assert scheduler().offer(request(1, rows=9), 0.0).declined is Declined.TOO_MANY_ROWS


def test_a_lost_deadline_is_refused_at_once() -> None:
    assert scheduler().offer(request(1, deadline=1.0), 1.0).declined is Declined.TOO_LATE


def test_a_request_whose_deadline_passes_in_the_queue_is_dropped_before_compute() -> None:
    s = scheduler(workers=0)
    s.offer(request(1, deadline=0.5), 0.0)
    s.offer(request(2), 0.0)
    assert s.poll(0.0).wake_s == pytest.approx(0.5)
    assert [r.id for r in s.poll(0.5).expired] == [1]
    s.worker_ready("w0", ["m"])
    (batch,) = s.poll(0.6).dispatches
    assert ids(batch) == [2]


def test_a_cancelled_request_is_not_computed() -> None:
    s = scheduler(workers=0)
    first = request(1)
    s.offer(first, 0.0)
    s.offer(request(2), 0.0)
    s.cancel(first)
    s.worker_ready("w0", ["m"])
    (batch,) = s.poll(0.0).dispatches
    assert ids(batch) == [2]
    assert s.rows_queued("m") == 0


def test_a_busy_worker_gets_one_full_batch_ahead_and_no_more() -> None:
    s = scheduler(max_queue_rows=64)
    for number in range(5):
        s.offer(request(number, rows=8), 0.0)
    assert len(s.poll(0.0).dispatches) == 2
    assert s.poll(0.0).dispatches == ()


def test_a_small_batch_ahead_is_closed_late_just_before_the_running_one_ends() -> None:
    s = scheduler(lead_s=0.002)
    s.offer(request(1), 0.0)
    (batch,) = s.poll(0.0).dispatches
    s.batch_done("w0", batch.id, 0.1, compute_s=0.1)

    s.offer(request(2, at=1.0), 1.0)
    assert len(s.poll(1.0).dispatches) == 1
    s.offer(request(3, at=1.01), 1.01)
    decisions = s.poll(1.01)
    assert decisions.dispatches == ()
    assert decisions.wake_s == pytest.approx(1.098)
    s.offer(request(4, at=1.05), 1.05)
    (ahead,) = s.poll(1.098).dispatches
    assert ids(ahead) == [3, 4]


def test_without_a_lead_only_a_full_batch_goes_ahead() -> None:
    s = taught(lead_s=None)
    s.offer(request(2), 0.0)
    assert len(s.poll(0.0).dispatches) == 1
    s.offer(request(3, at=0.005), 0.005)
    decisions = s.poll(0.0099)
    assert decisions.dispatches == ()
    assert decisions.wake_s > 0.010
    s.offer(request(4, rows=7, at=0.0099), 0.0099)
    (ahead,) = s.poll(0.0099).dispatches
    assert ids(ahead) == [3, 4]


def test_what_cannot_be_dispatched_before_a_worker_is_done_must_wait() -> None:
    s = scheduler(lead_s=None)
    assert s.offer(request(1), 0.0).poll
    (batch,) = s.poll(0.0).dispatches
    assert not s.offer(request(2, rows=6), 0.0).poll
    assert not s.offer(request(3, model="n"), 0.0).poll
    assert s.offer(request(4, deadline=0.5), 0.0).poll, "its deadline is the first to be waited for"
    assert s.poll(0.0).wake_s == 0.5
    assert not s.offer(request(5, model="n", deadline=0.6), 0.0).poll
    assert s.offer(request(6), 0.0).poll, "there is a full batch, to go ahead"
    assert not s.offer(request(7), 0.0).poll, "a poll is due by now"
    s.poll(0.0)
    s.batch_done("w0", batch.id, 0.1, compute_s=0.1)


def test_idle_workers_take_turns() -> None:
    s = scheduler(workers=2)
    workers = []
    for number in range(4):
        now = float(number)
        s.offer(request(number, at=now), now)
        (batch,) = s.poll(now).dispatches
        workers.append(batch.worker)
        s.batch_done(batch.worker, batch.id, now + 0.1, 0.1)
    assert workers == ["w0", "w1", "w0", "w1"]


def test_a_worker_gets_only_models_it_has() -> None:
    s = Scheduler(Limits())
    s.worker_ready("w0", ["n"])
    s.offer(request(1, model="m"), 0.0)
    assert s.poll(0.0).dispatches == ()
    s.worker_ready("w0", ["n", "m"])
    assert len(s.poll(0.0).dispatches) == 1


def test_what_a_lost_worker_had_is_computed_again_each_request_alone_and_first() -> None:
    s = scheduler()
    for number in (1, 2, 3):
        s.offer(request(number), 0.0)
    s.poll(0.0)
    s.offer(request(4), 0.1)
    assert s.worker_lost("w0") == ()
    s.worker_ready("w1", ["m"])
    order = []
    for _ in range(4):
        order += [ids(batch) for batch in s.poll(1.0).dispatches]
        (batch_id, *_) = s._workers["w1"].batches
        s.batch_done("w1", batch_id, 1.0, 0.001)
    assert order == [[1], [2], [3], [4]]
    assert s.is_empty


def test_a_request_that_loses_two_workers_is_given_up() -> None:
    s = scheduler(workers=2)
    s.offer(request(1), 0.0)
    (batch,) = s.poll(0.0).dispatches
    assert s.worker_lost(batch.worker) == ()
    (again,) = s.poll(0.1).dispatches
    assert [r.id for r in s.worker_lost(again.worker)] == [1]
    assert s.is_empty


def test_a_batch_ahead_is_not_blamed_for_the_death_of_its_worker() -> None:
    s = scheduler(workers=2, max_batch_rows=1)
    s.offer(request(1), 0.0)
    s.offer(request(2), 0.0)
    first, second = s.poll(0.0).dispatches
    assert s.worker_lost(first.worker) == ()
    s.batch_done(second.worker, second.id, 0.1, 0.1)
    s.offer(request(3), 0.1)
    assert [ids(batch) for batch in s.poll(0.1).dispatches] == [[1], [3]]
    assert [r.id for r in s.worker_lost(second.worker)] == [1]
    s.worker_ready("w2", ["m"])
    (batch,) = s.poll(0.2).dispatches
    assert batch.requests[0].attempts == 0


def test_a_saturated_model_does_not_starve_another_one() -> None:
    s = scheduler(max_queue_rows=64, lead_s=0.0)
    for number in range(3):
        s.offer(request(number, rows=8, model="m"), 0.0)
    held = list(s.poll(0.0).dispatches)
    s.offer(request(100, at=0.5, model="n"), 0.5)
    for number in range(3, 8):
        now = float(number)
        s.offer(request(number, rows=8, at=now, model="m"), now)
        done = held.pop(0)
        if 100 in ids(done):
            return
        s.batch_done("w0", done.id, now, 1.0)
        held += s.poll(now).dispatches
    raise AssertionError("the other model was never served")


def test_a_model_that_nobody_can_compute_gives_its_requests_back() -> None:
    s = scheduler(workers=0)
    s.offer(request(1, deadline=1.0), 0.0)
    s.offer(request(2, model="n"), 0.0)
    assert [r.id for r in s.drop_model("m")] == [1]
    assert s.drop_model("never seen") == ()
    assert s.poll(2.0).expired == ()
    assert s.rows_queued("m") == 0
    assert s.rows_queued("n") == 1


def test_deadlines_of_requests_that_wait_no_more_are_forgotten() -> None:
    s = scheduler()
    s.offer(request(0, deadline=5.0, model="nobody's"), 0.0)
    for number in range(1, 1000):
        s.offer(request(number, deadline=3600.0), 0.0)
        (batch,) = s.poll(0.0).dispatches
        s.batch_done("w0", batch.id, 0.0, 0.001)
    assert len(s._deadlines) < 100
    assert s.poll(0.0).wake_s == 5.0
    assert [r.id for r in s.poll(5.0).expired] == [0]
    assert s.poll(5.0).wake_s == math.inf


def test_higher_priorities_go_first_and_share_batches_with_lower_ones() -> None:
    s = scheduler(workers=0)
    for number, priority in [(1, 3), (2, 2), (3, 1), (4, 2), (5, 1)]:
        s.offer(request(number, rows=2, priority=priority), 0.0)
    s.worker_ready("w0", ["m"])
    first, second = s.poll(0.0).dispatches
    assert ids(first) == [3, 5, 2, 4]
    assert ids(second) == [1]


def test_a_higher_priority_of_one_model_goes_before_a_lower_one_of_another() -> None:
    s = scheduler(workers=0)
    s.offer(request(1, at=0.0, model="m", priority=2), 0.0)
    s.offer(request(2, at=0.5, model="n", priority=1), 0.5)
    s.worker_ready("w0", ["m", "n"])
    first, second = s.poll(1.0).dispatches
    assert (ids(first), ids(second)) == ([2], [1])


def test_the_queue_limit_is_each_prioritys_own() -> None:
    s = scheduler(workers=0)
    assert s.offer(request(1, rows=8, priority=2), 0.0).declined is None
    assert s.offer(request(2, rows=8, priority=2), 0.0).declined is None
    assert s.offer(request(3, rows=1, priority=2), 0.0).declined is Declined.QUEUE_FULL
    assert s.offer(request(4, rows=1, priority=1), 0.0).declined is None


def test_a_low_priority_request_does_not_hold_back_its_maximal_delay() -> None:
    s = scheduler(max_delay_s=0.010)
    s.offer(request(1, at=0.0, priority=2), 0.0)
    s.offer(request(2, at=0.008, priority=1), 0.008)
    (batch,) = s.poll(0.010).dispatches
    assert ids(batch) == [2, 1]


def test_a_batch_that_takes_far_longer_than_expected_hangs() -> None:
    s = scheduler(workers=2, hang_s=1.0, hang_factor=20.0)
    s.durations.learn("m", 1, 0.2)
    s.offer(request(1), 0.0)
    s.offer(request(2, model="n"), 0.0)
    slow, unknown = s.poll(0.0).dispatches
    assert s.poll(0.9).hung == ()
    assert s.poll(0.9).wake_s == pytest.approx(1.0)
    assert s.poll(1.0).hung == (unknown.worker,)
    assert s.poll(3.9).hung == (), "told once, and 20 times 0.2 s are not over"
    assert s.poll(4.0).hung == (slow.worker,)
    s.offer(request(3), 4.0)
    assert s.poll(4.0).dispatches == (), "a hung worker gets nothing more"


def test_a_worker_that_says_it_is_at_work_does_not_hang() -> None:
    s = scheduler(workers=1, hang_s=1.0)
    s.offer(request(1), 0.0)
    s.poll(0.0)
    s.worker_alive("w0", 0.9)
    assert s.poll(1.8).hung == ()
    assert s.poll(1.9).hung == ("w0",)


def test_a_cancelled_request_is_not_computed_again_when_its_worker_is_lost() -> None:
    s = scheduler()
    first = request(1)
    s.offer(first, 0.0)
    s.poll(0.0)
    s.cancel(first)
    assert s.worker_lost("w0") == ()
    assert s.is_empty


def taught(**limits: object) -> Scheduler:
    """A scheduler that knows that a batch takes 10 ms per row."""
    s = scheduler(**limits)
    for rows in (1, 2, 4, 8, 16, 32):
        s.durations.learn("m", rows, rows * 0.010)
    return s


def test_a_batch_is_no_larger_than_the_deadlines_in_it_allow() -> None:
    s = taught()
    for number in range(8):
        s.offer(request(number, deadline=0.050), 0.0)
    (batch,) = s.poll(0.0).dispatches
    assert ids(batch) == [0, 1, 2, 3]


def test_a_deadline_too_close_for_a_batch_ends_it_and_is_first_in_the_next() -> None:
    s = taught(batches_ahead=0)
    s.offer(request(1), 0.0)
    s.offer(request(2, deadline=0.015), 0.0)
    s.offer(request(3), 0.0)
    (batch,) = s.poll(0.0).dispatches
    assert ids(batch) == [1]


def test_a_request_that_would_be_late_even_alone_is_passed_over_and_expires() -> None:
    s = taught()
    s.offer(request(1, deadline=0.005), 0.0)
    s.offer(request(2, deadline=0.100), 0.0)
    (batch,) = s.poll(0.0).dispatches
    assert ids(batch) == [2]
    assert [late.id for late in s.poll(0.005).expired] == [1]


def test_if_all_would_be_late_the_first_is_computed_for_the_expectation_may_be_wrong() -> None:
    s = taught()
    s.offer(request(1, deadline=0.005), 0.0)
    s.offer(request(2, deadline=0.006), 0.0)
    (batch,) = s.poll(0.0).dispatches
    assert ids(batch) == [1]


def test_overload_with_deadlines_leaves_the_goodput() -> None:
    """Three times what can be computed, and deadlines shorter than the queue is long."""
    s = taught(max_batch_rows=32, max_queue_rows=64)
    per_row_s, until_s, deadline_s = 0.010, 20.0, 0.250
    arrivals = [number * per_row_s / 3 for number in range(int(until_s * 3 / per_row_s))]
    running: list[tuple[float, Batch]] = []
    in_time, now, number = 0, 0.0, 0
    while number < len(arrivals):
        now = min([arrivals[number], *(end for end, _ in running)])
        for end, batch in list(running):
            if end <= now:
                running.remove((end, batch))
                s.batch_done(batch.worker, batch.id, now, batch.rows * per_row_s)
                in_time += sum(one.deadline_s >= now for one in batch.requests)
        if arrivals[number] <= now:
            s.offer(request(number, at=now, deadline=now + deadline_s), now)
            number += 1
        for batch in s.poll(now).dispatches:
            begins = max([now, *(end for end, _ in running)])
            running.append((begins + batch.rows * per_row_s, batch))
    assert in_time * per_row_s > 0.9 * until_s


def test_the_largest_batch_of_a_model_is_that_of_the_workers_that_have_it() -> None:
    s = Scheduler(Limits(max_batch_rows=8, max_queue_rows=16))
    assert s.batch_rows("m") == 0
    s.worker_ready("cpu", ["m"], "slow")
    assert s.batch_rows("m") == 8  # nothing was measured: as many as allowed
    # Four rows at once cost each less, eight cost each more.
    s.model_measured("m", ((1, 0.1), (4, 0.2), (8, 0.9)), "slow")
    assert s.batch_rows("m") == 4
    s.model_measured("m", ((1, 0.1), (2, 0.1), (4, 0.9)), "fast")
    s.worker_ready("gpu", ["m"], "fast")
    assert s.batch_rows("m") == 4
    s.worker_lost("cpu")
    assert s.batch_rows("m") == 2
    assert s.batch_rows("n") == 0


def test_the_backlog_is_nothing_unknown_or_what_the_workers_take_for_it() -> None:
    s = scheduler(workers=2, batches_ahead=0, max_queue_rows=64)
    assert s.backlog_s("m") == 0.0
    for number in range(3):
        s.offer(request(number, rows=8), 0.0)
    assert s.backlog_s("m") is None, "no batch was timed yet"
    for batch in s.poll(0.0).dispatches:
        s.batch_done(batch.worker, batch.id, 0.4, 0.4)
    s.offer(request(3, rows=8), 0.4)
    assert s.rows_queued("m") == 16
    assert s.backlog_s("m") == pytest.approx(16 / (2 * 8 / 0.4))
    assert s.backlog_s("never heard of") == 0.0


def test_the_backlog_of_a_family_is_what_its_fastest_variants_take() -> None:
    s = Scheduler(Limits(max_batch_rows=8, max_queue_rows=64, batches_ahead=0))
    s.family_served("auto", [Member("slow", 0.9), Member("fast", 0.8), Member("other", 0.7)])
    assert s.backlog_s("auto") == 0.0
    s.worker_ready("a", ["slow", "fast"])
    s.worker_ready("b", ["slow"])
    for number in range(3):
        s.offer(request(number, rows=8, model="auto"), 0.0)
    assert s.backlog_s("auto") is None, "no batch was timed yet"
    s.model_measured("slow", ((1, 0.1), (8, 0.4)))
    s.model_measured("fast", ((1, 0.05), (8, 0.1)))
    assert s.rows_queued("auto") == 24
    assert s.backlog_s("auto") == pytest.approx(24 / (8 / 0.1 + 8 / 0.4))
