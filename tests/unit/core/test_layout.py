"""Batches one after the other: when they are done, and the layout that is kept."""

import math
import random

import pytest

from rootserve.server.core.lane import Lane
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.layout import LIKELY, SURE, Line, Step, lateness, latest_s
from rootserve.server.core.promises import Promises
from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Speeds, beyond_s
from rootserve.server.core.worker import Slot

SIGMA = 0.4


def speeds(sigma: float = SIGMA) -> Speeds:
    rows = [
        {
            "kind": "processor",
            "model": "quick",
            "rows": each,
            "p50_s": each * 0.001,
            "p99_s": each * 0.001 * math.exp(2.326 * sigma),
        }
        for each in (1, 2, 4, 8)
    ]
    return Speeds(LatencyTable.from_document({"latency": rows}), 8)


def slot(free_s: float = 0.0, worker: str = "w") -> Slot:
    return Slot(worker, "processor", frozenset({"quick"}), free_s, True)


def request(number: int, deadline_s: float, rows: int = 1) -> Request:
    return Request(number, "family", rows, 0.0, deadline_s)


def line(count: int, due_s: float) -> Line:
    cost = speeds().of("quick", "processor").cost(8)
    lane = Lane("quick", "pixels", [request(0, due_s)])
    return [Step(lane, 0, 1, cost, due_s) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 4, 16])
def test_times_of_batches_in_a_row_add_up_as_chance_has_it(count: int) -> None:
    """99 of 100 sums of log-normal times are done by then."""
    rng = random.Random(count)
    sums = sorted(
        sum(0.008 * math.exp(SIGMA * rng.gauss(0.0, 1.0)) for _ in range(count))
        for _ in range(20_000)
    )
    cost = speeds().of("quick", "processor").cost(8)
    told_s = count * cost.mean_s + beyond_s(count * cost.variance, count * cost.tail)
    assert told_s == pytest.approx(sums[int(0.99 * len(sums))], rel=0.03)


def test_a_sum_is_far_below_that_of_the_longest() -> None:
    cost = speeds().of("quick", "processor").cost(8)
    told_s = 16 * cost.mean_s + beyond_s(16 * cost.variance, 16 * cost.tail)
    assert told_s < 0.75 * 16 * cost.within_s()


def test_what_always_takes_as_long_is_known_to_the_second() -> None:
    cost = speeds(sigma=0.0).of("quick", "processor").cost(8)
    assert cost.mean_s == pytest.approx(0.008)
    assert (cost.variance, cost.tail) == (0.0, 0.0)
    assert cost.within_s(SURE) == cost.mean_s


def test_lateness_counts_from_when_a_worker_is_free_and_grows_with_caution() -> None:
    steps = line(4, due_s=0.06)
    assert lateness(slot(), steps, LIKELY) == 0.0
    late = lateness(slot(0.025), steps, LIKELY)
    assert 0.0 < late < lateness(slot(0.025), steps, SURE)
    assert lateness(slot(0.035), steps, LIKELY) == pytest.approx(late + 0.01)
    assert lateness(slot(0.035), steps, LIKELY, since_s=0.07) == 0.0  # none is due so late


def test_who_begins_at_the_latest_time_is_just_in_time_with_all_caution() -> None:
    steps = line(5, due_s=0.1)
    start_s = latest_s(steps)
    assert lateness(slot(start_s - 1e-6), steps, SURE) == 0.0
    assert lateness(slot(start_s + 1e-6), steps, SURE) > 0.0
    assert latest_s([]) == math.inf


def test_one_that_is_late_already_does_not_cost_those_that_are_due_later() -> None:
    promises = Promises(speeds())
    promises.add(request(1, 0.004), "quick")
    slots = [slot(0.0035)]
    assert promises.late_s(slots) > 0.0
    assert promises.late_with_s(slots, request(2, 0.2), "quick", LIKELY) == 0.0
    assert promises.late_with_s(slots, request(3, 0.005), "quick", LIKELY) > 0.0
    assert not promises.fits(slots, request(2, 0.2), "quick", LIKELY)


def test_trying_a_promise_changes_nothing() -> None:
    promises = Promises(speeds())
    promises.add(request(1, 0.1), "quick")
    changes = promises.changes
    assert promises.fits([slot()], request(2, 0.1), "quick", SURE)
    assert promises.late_with_s([slot()], request(2, 0.0001), "quick", SURE) > 0.0
    assert promises.changes == changes
    assert request(2, 0.1) not in promises
    assert len(promises) == 1
