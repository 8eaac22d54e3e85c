"""What batches cost, and how large they had best be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.core.latency import FILES, PIXELS, LatencyTable
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


def test_a_worker_at_another_pace_makes_no_batches_anew() -> None:
    made = table()
    for rows in SIZES:
        made.learn("idle", rows, 0.0002 * (1 + rows))
    speeds = Speeds(made, 32)
    before = speeds.of("idle", "")
    for _ in range(60):
        made.learn("net", 8, 0.0036)  # whatever it is, it takes longer from now on
    after = speeds.of("idle", "")
    assert after.batches is before.batches
    assert after.mean_s(8) > 1.5 * before.mean_s(8)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["net", "other"]),
            st.sampled_from(SIZES),
            st.floats(0.3, 4.0),
            st.sampled_from([PIXELS, FILES]),
            st.floats(0.0, 0.01),
        ),
        max_size=30,
    )
)
def test_what_is_remembered_is_what_follows_from_the_table_now(
    batches: list[tuple[str, int, float, str, float]],
) -> None:
    made = LatencyTable()
    speeds = Speeds(made, 32)
    for model, rows, factor, form, hand_over_s in batches:
        made.handed_over(hand_over_s, "")
        made.learn(model, rows, 0.0002 * (1 + rows) * factor, "", form)
        anew = Speeds(made, 32)
        for each in ("net", "other"):
            for its_form in (PIXELS, FILES):
                known, expected = (one.of(each, "", its_form) for one in (speeds, anew))
                assert (known.best, known.row_s) == (expected.best, expected.row_s)
                assert known.spare_s == expected.spare_s
                assert [known.cost(n) for n in (1, 5, 32)] == [expected.cost(n) for n in (1, 5, 32)]
        names = ("net", "other")
        assert speeds.means_s(names, "", 7) == anew.means_s(names, "", 7)
