"""Lanes: in order, and never changed under a layout that was made of them."""

import math

from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.core.lane import Lane
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.packing import Due, Packing
from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Speeds

TABLE = {"kind": "k", "model": "quick", "rows": 8, "p50_s": 0.01, "p99_s": 0.01}
SPEED = Speeds(LatencyTable.from_document({"latency": [TABLE]}), 8).of("quick", "k")


def request(number: int, deadline_s: float, rows: int = 1) -> Request:
    return Request(number, "family", rows, 0.0, deadline_s)


def numbers(lane: Lane) -> list[int]:
    return [one.id for one in lane.all]


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.integers(1, 4)), max_size=20))
def test_they_come_by_deadline_and_then_by_number(asked: list[tuple[float, int]]) -> None:
    lane = Lane("quick", "pixels")
    made = [request(number, due_s, rows) for number, (due_s, rows) in enumerate(asked)]
    for one in reversed(made):
        lane = lane.added(one)
    assert lane.all == sorted(made, key=lambda one: (one.deadline_s, one.id))
    assert lane.due == [one.deadline_s for one in lane.all]
    assert lane.rows == [one.rows for one in lane.all]
    assert lane.all_rows == sum(one.rows for one in made)
    assert lane.rows_before(0.2) == sum(one.rows for one in made if one.deadline_s < 0.2)
    assert all(lane.has(one) for one in made)
    assert not lane.has(request(len(made), 0.2))


@given(st.sets(st.integers(0, 9)), st.integers(0, 9), st.booleans())
def test_a_layout_keeps_the_lane_that_it_was_made_of(
    taken: set[int], first: int, add_first: bool
) -> None:
    lane = Lane("quick", "pixels", [request(number, 0.1 * (number + 1)) for number in range(10)])
    layout = Packing(4).layout([Due(lane, [(SPEED, [0])])], 1)
    held = [step.requests for step in layout.steps]
    rest = lane.without_first(first)
    more = (lane if add_first else rest).added(request(10, 0.35))
    fewer = rest.without(taken, 0.1 * (max(taken, default=0) + 1))
    one_less = rest.without_one(request(9, 1.0))
    assert [step.requests for step in layout.steps] == held
    assert numbers(lane) == list(range(10))
    assert numbers(rest) == list(range(first, 10))
    assert sorted(numbers(more)) == [*range(0 if add_first else first, 11)]
    assert numbers(fewer) == [number for number in range(first, 10) if number not in taken]
    assert numbers(one_less) == list(range(first, 9))


def test_one_that_nobody_refers_to_is_changed_itself() -> None:
    lane = Lane("quick", "pixels")
    assert lane.added(request(1, 0.1)) is lane
    assert lane.with_one(request(2, 0.1)) is not lane
    rest = lane.without_first(0)
    assert rest is lane
    assert lane.without({5}, math.inf) is lane
