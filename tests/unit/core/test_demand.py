"""What is asked of a family, and what a second of its workers is worth then."""

import math
import random

import pytest

from rootserve.server.core.demand import Demand
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Speed, Speeds

ROW_S = 0.001


def speed() -> Speed:
    """Batches of up to 8 rows, of which each takes a millisecond in the mean; the slowest take twice that."""
    rows = [
        {
            "kind": "",
            "model": "quick",
            "rows": each,
            "p50_s": each * ROW_S,
            "p99_s": 2 * each * ROW_S,
        }
        for each in (1, 2, 4, 8)
    ]
    return Speeds(LatencyTable.from_document({"latency": rows}), 8).of("quick", "")


def demand(load: float, deadline_s: float = 0.1, burst: int = 1, seconds: float = 2.0) -> Demand:
    """What came so far: Poisson arrivals, or as many rows in bursts of so many requests."""
    made = Demand(patience_s=1.0)
    rng = random.Random(5)
    now, number = 0.0, 0
    while now < seconds:
        now += rng.expovariate(load / ROW_S / burst)
        for _ in range(burst):
            number += 1
            made.came(Request(number, "family", 1, now, now + deadline_s), now)
    return made


def steadily(made: Demand, begin_s: float, load: float, requests: int) -> float:
    """So many requests of one row at equal distances; gives when the last one comes."""
    for number in range(requests):
        now = begin_s + number * ROW_S / load
        made.came(Request(number, "family", 1, now, now + 0.1), now)
    return now


def price(made: Demand, rows: float = 0.0, now: float = 2.0) -> float:
    return made.price(rows, speed(), 1, now)


def test_the_rate_is_that_of_what_came_from_the_first_second_on() -> None:
    for seconds in (0.3, 3.0):
        assert demand(8.0, seconds=seconds).rate(seconds) == pytest.approx(8000, rel=0.2)
    assert demand(0.5).rate(3.0) < 1.0
    assert Demand(1.0).rate(5.0) == 0.0


def test_a_second_is_worth_more_the_more_comes_and_the_more_waits() -> None:
    low, high = demand(0.3), demand(0.85)
    assert 0.0 <= price(low) < price(high) < price(high, rows=30) < price(high, rows=60) <= 1.0
    assert price(low) < 0.01
    assert price(demand(1.3)) == 1.0


def test_a_second_is_worth_more_where_arrivals_come_in_bursts_and_deadlines_are_near() -> None:
    assert price(demand(0.7, burst=8)) > 2 * price(demand(0.7))
    assert price(demand(0.7, deadline_s=0.03)) > 2 * price(demand(0.7))


def test_where_little_comes_there_is_time_however_near_deadlines_are() -> None:
    assert price(demand(0.05, deadline_s=0.002)) < 0.2


def test_more_at_once_than_chance_has_it_is_seen_at_once() -> None:
    made = demand(0.3)
    before = made.rate(2.0)
    now = steadily(made, 2.0, 1.2, 24)
    # An average over 50 ms alone would be at 0.6 after 20 ms.
    assert before * ROW_S < 0.45
    assert 0.7 < made.rate(now) * ROW_S < 1.1


def test_what_comes_by_chance_at_once_counts_little() -> None:
    made = Demand(patience_s=1.0)
    rng = random.Random(7)
    now, rates = 0.0, []
    for number in range(4000):
        now += rng.expovariate(0.7 / ROW_S)
        made.came(Request(number, "family", 1, now, now + 0.1), now)
        rates.append(made.rate(now))
    # A request is seen at its own arrival, so that the mean is above 0.7 anyway, by one in 50 ms.
    assert sum(rates) / len(rates) * ROW_S == pytest.approx(0.75, abs=0.05)


def test_a_pause_is_no_burst() -> None:
    made = demand(0.5)
    without = price(made)
    now = steadily(made, 62.0, 0.5, 40)
    assert without < price(made, now=now) < 0.1


def test_near_deadlines_count_most() -> None:
    made = Demand(patience_s=1.0)
    for number in range(400):
        deadline_s = 0.01 if number % 4 == 0 else math.inf
        made.came(Request(number, "family", 1, 0.0, deadline_s), number * 1e-9)
    assert made.left_s == pytest.approx(4 / (1 / 0.01 + 3), rel=0.1)
    assert made.tight_s < 0.02


def test_overload_lasts_only_once_it_has_lasted() -> None:
    assert demand(0.9).lasts(ROW_S, 2.0) == 0.0
    assert demand(1.4, seconds=3.0).lasts(ROW_S, 3.0) == 1.0
    made = demand(0.3)
    for number in range(60):
        made.came(Request(10_000 + number, "family", 1, 2.0), 2.0 + number * 0.0005)
    assert made.rate(2.03) * ROW_S > 0.8
    assert made.lasts(ROW_S, 2.03) == 0.0


def test_while_requests_are_lost_no_time_is_left_over_whatever_is_predicted() -> None:
    made = demand(0.5)
    predicted = price(made)
    assert predicted < 0.1
    for _ in range(10):
        made.lost(1, 2.0)
    assert predicted < price(made) < 1.0  # 1 in 50 of the last second
    for _ in range(30):
        made.lost(1, 2.0)
    assert price(made) == 1.0
    for number in range(5000):
        now = 2.0 + 0.002 * number
        made.came(Request(number, "family", 1, now, now + 0.1), now)
    assert price(made, now=12.0) < 0.1
