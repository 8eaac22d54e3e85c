"""What batches cost, and how large they had best be."""

import pytest

from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.speeds import Speeds

SIZES = (1, 2, 4, 8, 16, 32)


def table() -> LatencyTable:
    """Batches of 0.2 ms and 0.2 ms more for each row, as measured at the start."""
    made = LatencyTable()
    for rows in SIZES:
        made.learn("net", rows, 0.0002 * (1 + rows))
    return made


def test_the_best_size_is_the_largest_of_those_that_are_as_efficient() -> None:
    speed = Speeds(table(), 32).of("net", "")
    assert speed.best == 32
    assert speed.row_s == pytest.approx(0.0002 * 33 / 32)


def test_what_passes_between_batches_speaks_for_large_ones() -> None:
    made = LatencyTable(hand_over_s=0.0005)
    for rows in SIZES:
        made.learn("net", rows, 0.001 * rows)
    assert Speeds(made, 32).of("net", "").best == 32
    for rows in SIZES:
        made.learn("steeper", rows, 0.001 * rows**1.2)
    assert Speeds(made, 32).of("steeper", "").best == 2


def test_a_few_slow_batches_put_no_end_to_their_size() -> None:
    made = table()
    for _ in range(4):
        made.learn("net", 32, 0.08)
        for _ in range(10):
            made.learn("net", 8, 0.0018)
    assert Speeds(made, 32).of("net", "").best == 32


def test_accidents_of_the_machine_cost_no_more_than_so_many_means() -> None:
    made = table()
    for number in range(64):
        made.learn("net", 8, 0.2 if number % 32 == 0 else 0.0018)
    cost = Speeds(made, 32).of("net", "").cost(8)
    assert made.bound("net", 8) > 5 * cost.mean_s
    assert cost.within_s() == pytest.approx(3 * cost.mean_s)
