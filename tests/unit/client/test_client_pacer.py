"""The pacer's decisions, by table and by property."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.load import Distribution
from client.load.pacer import (
    ConstantSchedule,
    Departure,
    PoissonSchedule,
    next_departure,
    schedule_for,
)

rates = st.floats(0.01, 20_000)
seeds = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(
    ("elapsed_s", "sent", "expected"),
    [
        (0.0, 0, Departure(0.0, 0.0)),
        (0.0, 1, Departure(0.1, 0.1)),
        (0.04, 1, Departure(0.1, 0.06)),
        (0.1, 1, Departure(0.1, 0.0)),
        (5.0, 1, Departure(0.1, 0.0)),  # overdue: keeps its instant
        (0.0, 9, Departure(0.9, 0.9)),
        (0.0, 10, None),  # falls on the end
        (7.0, 11, None),
    ],
)
def test_ten_a_second_for_one_second(
    elapsed_s: float, sent: int, expected: Departure | None
) -> None:
    departure = next_departure(ConstantSchedule(10), elapsed_s, sent, end_s=1.0)
    if expected is None:
        assert departure is None
    else:
        assert departure is not None
        assert departure.due_s == pytest.approx(expected.due_s)
        assert departure.wait_s == pytest.approx(expected.wait_s)


@given(rate=rates, n=st.integers(0, 10**9))
def test_constant_gaps_do_not_drift(rate: float, n: int) -> None:
    schedule = ConstantSchedule(rate)
    assert schedule.due_s(n) == pytest.approx(n / rate)
    assert schedule.due_s(n) <= schedule.due_s(n + 1)


@given(rate=rates, seed=seeds, order=st.permutations(range(0, 9000, 1500)))
def test_poisson_depends_on_the_seed_alone(rate: float, seed: int, order: list[int]) -> None:
    """Neither the order of asking nor how far ahead one asks changes an instant."""
    asked = PoissonSchedule(rate, seed)
    instants = {n: asked.due_s(n) for n in order}
    again = PoissonSchedule(rate, seed)
    assert [again.due_s(n) for n in sorted(order)] == [instants[n] for n in sorted(order)]


@given(rate=rates, seed=seeds)
def test_poisson_never_goes_back(rate: float, seed: int) -> None:
    schedule = PoissonSchedule(rate, seed)
    instants = [schedule.due_s(n) for n in range(4090, 4110)]
    assert instants == sorted(instants)
    assert instants[0] > 0


def test_poisson_gaps_are_exponential() -> None:
    schedule = PoissonSchedule(200.0, seed=3)
    instants = [schedule.due_s(n) for n in range(20_000)]
    gaps = [after - before for before, after in pairwise(instants)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 200, rel=0.03)
    # Only of the exponential distribution are mean and deviation the same and 1/e beyond them.
    assert variance**0.5 == pytest.approx(mean, rel=0.05)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


def test_other_seed_other_departures() -> None:
    assert PoissonSchedule(10, 1).due_s(0) != PoissonSchedule(10, 2).due_s(0)


@given(
    distribution=st.sampled_from(Distribution),
    rate=rates,
    seed=seeds,
    elapsed_s=st.floats(0, 1e6),
    sent=st.integers(0, 5000),
    end_s=st.floats(0, 1e6),
)
def test_a_departure_is_within_the_run_and_never_in_the_past(
    distribution: Distribution, rate: float, seed: int, elapsed_s: float, sent: int, end_s: float
) -> None:
    schedule = schedule_for(distribution, rate, seed)
    departure = next_departure(schedule, elapsed_s, sent, end_s)
    if departure is None:
        assert schedule.due_s(sent) >= end_s
    else:
        assert departure.due_s == schedule.due_s(sent) < end_s
        assert departure.wait_s >= 0
        assert elapsed_s + departure.wait_s == pytest.approx(max(elapsed_s, departure.due_s))
