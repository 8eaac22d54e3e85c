"""Which deadlines are next, of requests that go in any order."""

import math

from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.core.deadlines import Deadlines
from rootserve.server.core.queue import Request


@given(
    st.lists(st.one_of(st.just(math.inf), st.floats(0.1, 1.0)), max_size=12),
    st.lists(st.sets(st.integers(0, 11), max_size=4), max_size=4),
)
def test_the_next_is_the_first_of_those_that_wait(
    asked: list[float], batches: list[set[int]]
) -> None:
    deadlines = Deadlines()
    waits = {}
    for number, deadline_s in enumerate(asked):
        waits[number] = Request(number, "family", 1, 0.0, deadline_s)
        deadlines.add(waits[number])
    for batch in batches:
        gone = sorted((waits.pop(one) for one in batch if one in waits), key=lambda one: one[4])
        deadlines.left(gone)
        next_s = deadlines.next_s(lambda number, of: number in waits, len(waits))
        assert next_s == min((one.deadline_s for one in waits.values()), default=math.inf)
        past = [number for number, _ in deadlines.past(0.0)]
        assert past == []
    told = [number for number, _ in deadlines.past(2.0) if number in waits]
    due = [one for one in waits.values() if one.deadline_s < math.inf]
    assert told == [one.id for one in sorted(due, key=lambda one: (one.deadline_s, one.id))]
