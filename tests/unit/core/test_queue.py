"""The order in which requests wait."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.core.queue import Queue, Request
from rootserve.server.core.scheduler import Limits, Scheduler

arrivals = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), max_size=20)


def filled(arrivals: list[tuple[float, int]], age_s: float) -> Queue:
    queue, now = Queue(age_s), 100.0
    for number, (pause_s, priority) in enumerate(arrivals):
        now += pause_s
        queue.append(Request(number, "m", 1, now, priority=priority))
    return queue


@given(arrivals)
def test_without_an_age_priorities_are_strict(arrivals: list[tuple[float, int]]) -> None:
    order = [(request.priority, request.id) for request in filled(arrivals, math.inf)]
    assert order == sorted(order)


@given(arrivals, st.floats(0.01, 20))
def test_nobody_is_overtaken_by_one_who_came_later_than_the_age_allows(
    arrivals: list[tuple[float, int]], age_s: float
) -> None:
    queue = filled(arrivals, age_s)
    order = list(queue)
    assert sorted(request.id for request in order) == list(range(len(arrivals)))
    for position, request in enumerate(order):
        for before in order[:position]:
            if before.id > request.id:
                late_s = before.arrived_s - request.arrived_s
                assert before.priority < request.priority
                assert late_s <= (request.priority - before.priority) * age_s + 1e-6
    while queue:
        head = queue.head
        assert head == order.pop(0)
        queue.remove(head.id)


def test_the_lowest_priority_is_computed_although_the_highest_never_ends() -> None:
    """A worker that is always busy with more of priority 1 than it can compute."""
    scheduler = Scheduler(Limits(max_batch_rows=1, priority_age_s=2.0, batches_ahead=0))
    scheduler.worker_ready("w", ["m"])
    now, number = 100.0, 1
    scheduler.offer(Request(0, "m", 1, now, priority=3), now)
    while now < 110:
        for _ in range(2):
            scheduler.offer(Request(number, "m", 1, now, priority=1), now)
            number += 1
        (batch,) = scheduler.poll(now).dispatches
        if batch.requests[0].id == 0:
            break
        scheduler.batch_done("w", batch.id, now, 0.1)
        now += 0.1
    # Those that came within 4 s go first, and each takes 0.1 s while two come.
    assert 104 <= now <= 108.5


@pytest.mark.parametrize("deaths", [("w0", "w1"), ("w1", "w0")])
def test_what_lost_workers_had_is_computed_in_order_of_arrival(deaths: tuple[str, str]) -> None:
    scheduler = Scheduler(Limits(max_batch_rows=1, batches_ahead=0, max_attempts=3))
    for worker in ("w0", "w1"):
        scheduler.worker_ready(worker, ["m"])
    for number in range(3):
        scheduler.offer(Request(number, "m", 1, 100.0 + number), 100.0 + number)
        scheduler.poll(100.0 + number)
    for worker in deaths:
        scheduler.worker_lost(worker)
    order = []
    scheduler.worker_ready("w2", ["m"])
    while dispatches := scheduler.poll(103.0).dispatches:
        order.append(dispatches[0].requests[0].id)
        scheduler.batch_done("w2", dispatches[0].id, 103.0, 0.1)
    assert order == [0, 1, 2]
