"""Axes of the report's drawings: round ticks, whatever the values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootserve.client.report.axes import linear, logarithmic, of_times

VALUES = st.lists(st.floats(1e-6, 1e5), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("greatest", "ticks"),
    [
        (7.0, [0, 2, 4, 6, 8]),
        (1000.0, [0, 200, 400, 600, 800, 1000]),
        (3.0, [0, 1, 2, 3]),  # no half requests
        (0.35, [0, 0.1, 0.2, 0.3, 0.4]),
        (0.0, [0, 1]),
    ],
)
def test_linear_ticks_are_round(greatest: float, ticks: list[float]) -> None:
    axis = linear("x", [greatest], str)
    assert [value for value, _ in axis.ticks] == pytest.approx(ticks)
    assert axis.high == pytest.approx(ticks[-1])


def test_an_exact_axis_ends_where_the_values_end() -> None:
    axis = linear("x", [23.0], str, exact=True)
    assert (axis.high, axis.ticks[-1][0]) == (23.0, 20.0)


def test_logarithmic_ticks_are_1_2_and_5_times_powers_of_ten() -> None:
    axis = logarithmic("x", [0.003, 0.12], str)
    assert [value for value, _ in axis.ticks] == pytest.approx(
        [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2]
    )
    wide = logarithmic("x", [1e-5, 10.0], str)
    assert [value for value, _ in wide.ticks] == pytest.approx([1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10])


@given(VALUES)
def test_every_value_lies_on_its_axis(values: list[float]) -> None:
    for axis in (linear("x", values, str), logarithmic("x", values, str)):
        assert axis.low <= min(values) * (1 + 1e-9)
        assert max(values) <= axis.high * (1 + 1e-9)
        assert 2 <= len(axis.ticks) <= 12
        shares = [axis.share(value) for value in sorted(values)]
        assert shares == sorted(shares)
        assert axis.share(axis.low) == 0
        assert axis.share(axis.high) == 1


def test_times_far_apart_get_a_logarithmic_axis() -> None:
    assert of_times("t", [0.001, 0.1], str).logarithmic
    assert not of_times("t", [0.001, 0.01], str).logarithmic
    assert not of_times("t", [], str).logarithmic
