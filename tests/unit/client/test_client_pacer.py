"""The pacer's decisions, by table and by property."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootserve.client.load import Distribution
from rootserve.client.load.arrivals import schedule_for
from rootserve.client.load.pacer import (
    ConstantSchedule,
    Departure,
    PoissonSchedule,
    RampRate,
    RateProfile,
    SharedSchedule,
    SteadyRate,
    StepRate,
    TraceSchedule,
    next_departure,
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
    departure = next_departure(ConstantSchedule(SteadyRate(10)), elapsed_s, sent, end_s=1.0)
    if expected is None:
        assert departure is None
    else:
        assert departure is not None
        assert departure.due_s == pytest.approx(expected.due_s)
        assert departure.wait_s == pytest.approx(expected.wait_s)


@given(rate=rates, n=st.integers(0, 10**9))
def test_constant_gaps_do_not_drift(rate: float, n: int) -> None:
    schedule = ConstantSchedule(SteadyRate(rate))
    assert schedule.due_s(n) == pytest.approx(n / rate)
    assert schedule.due_s(n) <= schedule.due_s(n + 1)


@given(rate=rates, seed=seeds, order=st.permutations(range(0, 9000, 1500)))
def test_poisson_depends_on_the_seed_alone(rate: float, seed: int, order: list[int]) -> None:
    """Neither the order of asking nor how far ahead one asks changes an instant."""
    asked = PoissonSchedule(SteadyRate(rate), seed)
    instants = {n: asked.due_s(n) for n in order}
    again = PoissonSchedule(SteadyRate(rate), seed)
    assert [again.due_s(n) for n in sorted(order)] == [instants[n] for n in sorted(order)]


@given(rate=rates, seed=seeds)
def test_poisson_never_goes_back(rate: float, seed: int) -> None:
    schedule = PoissonSchedule(SteadyRate(rate), seed)
    instants = [schedule.due_s(n) for n in range(4090, 4110)]
    assert instants == sorted(instants)
    assert instants[0] > 0


def test_poisson_gaps_are_exponential() -> None:
    schedule = PoissonSchedule(SteadyRate(200.0), seed=3)
    instants = [schedule.due_s(n) for n in range(20_000)]
    gaps = [after - before for before, after in pairwise(instants)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 200, rel=0.03)
    # Only of the exponential distribution are mean and deviation the same and 1/e beyond them.
    assert variance**0.5 == pytest.approx(mean, rel=0.05)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


def test_other_seed_other_departures() -> None:
    assert PoissonSchedule(SteadyRate(10), 1).due_s(0) != PoissonSchedule(SteadyRate(10), 2).due_s(
        0
    )


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
    schedule = schedule_for(rate, distribution, seed, warmup_s=0.0, duration_s=10.0)
    departure = next_departure(schedule, elapsed_s, sent, end_s)
    if departure is None:
        assert schedule.due_s(sent) >= end_s
    else:
        assert departure.due_s == schedule.due_s(sent) < end_s
        assert departure.wait_s >= 0
        assert elapsed_s + departure.wait_s == pytest.approx(max(elapsed_s, departure.due_s))


@pytest.mark.parametrize(
    ("profile", "departures", "instant_s"),
    [
        (SteadyRate(50), 100, 2.0),
        # 10/s for 2 s, then up to 30/s within 4 s (80 in all), then on at 30/s.
        (RampRate(10, 30, from_s=2, over_s=4), 10, 1.0),
        (RampRate(10, 30, from_s=2, over_s=4), 20, 2.0),
        (RampRate(10, 30, from_s=2, over_s=4), 20 + 10 * 2 + 5 / 2 * 2**2, 4.0),
        (RampRate(10, 30, from_s=2, over_s=4), 100, 6.0),
        (RampRate(10, 30, from_s=2, over_s=4), 130, 7.0),
        (RampRate(30, 10, from_s=0, over_s=4), 30 * 2 - 5 / 2 * 2**2, 2.0),
        (RampRate(20, 20, from_s=1, over_s=4), 60, 3.0),
        (RampRate(0, 10, from_s=5, over_s=2), 0, 5.0),
        (RampRate(0, 10, from_s=5, over_s=2), 2.5, 6.0),
        (RampRate(10, 0, from_s=0, over_s=2), 10, 2.0),
        (RampRate(10, 0, from_s=0, over_s=2), 10.1, float("inf")),
        # The first rate also in the warm-up of 1 s, the last one on.
        (StepRate([(10, 2), (100, 3)], from_s=1), 10, 1.0),
        (StepRate([(10, 2), (100, 3)], from_s=1), 30, 3.0),
        (StepRate([(10, 2), (100, 3)], from_s=1), 130, 4.0),
        (StepRate([(10, 2), (100, 3)], from_s=1), 430, 7.0),
        # A pause: what is due after it, not in it.
        (StepRate([(10, 1), (0, 5), (10, 1)], from_s=0), 9, 0.9),
        (StepRate([(10, 1), (0, 5), (10, 1)], from_s=0), 11, 6.1),
        (StepRate([(0, 2), (10, 1)], from_s=1), 1, 3.1),
        (StepRate([(10, 1), (0, 1)], from_s=0), 11, float("inf")),
    ],
)
def test_profiles(profile: RateProfile, departures: float, instant_s: float) -> None:
    assert profile.reached_s(departures) == pytest.approx(instant_s)


@given(
    first=st.floats(0, 1000),
    last=st.floats(0, 1000),
    from_s=st.floats(0, 100),
    over_s=st.floats(0.1, 100),
    n=st.integers(0, 10_000),
)
def test_a_ramp_never_goes_back(
    first: float, last: float, from_s: float, over_s: float, n: int
) -> None:
    ramp = RampRate(first, last, from_s, over_s)
    if first + last > 0:
        assert ramp.reached_s(n) <= ramp.reached_s(n + 1) * (1 + 1e-9)


def test_a_trace_ends() -> None:
    trace = TraceSchedule([0.0, 0.5, 0.5, 2.0])
    assert [trace.due_s(n) for n in range(5)] == [0.0, 0.5, 0.5, 2.0, float("inf")]


@given(parts=st.integers(1, 7), seed=seeds)
def test_the_shares_of_several_processes_are_the_whole(parts: int, seed: int) -> None:
    whole = PoissonSchedule(SteadyRate(100), seed)
    shares = [
        SharedSchedule(PoissonSchedule(SteadyRate(100), seed), part, parts) for part in range(parts)
    ]
    instants = sorted(share.due_s(n) for share in shares for n in range(20))
    assert instants == [whole.due_s(n) for n in range(20 * parts)]
