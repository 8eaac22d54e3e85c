"""Layouts that are continued from where something has changed are the same as those made anew."""

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.core.lane import Lane
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.layout import Layout
from rootserve.server.core.packing import Due, Packing
from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Speeds

ROW_S = {("quick", "a"): 0.001, ("quick", "b"): 0.002, ("slow", "a"): 0.003, ("slow", "b"): 0.003}
SPEEDS = Speeds(
    LatencyTable.from_document(
        {
            "latency": [
                {
                    "kind": kind,
                    "model": variant,
                    "rows": rows,
                    "p50_s": 0.002 + rows * row_s,
                    "p99_s": 0.003 + rows * row_s,
                }
                for (variant, kind), row_s in ROW_S.items()
                for rows in (1, 2, 4, 8)
            ]
        }
    ),
    8,
)
KINDS = ("a", "a", "b")

requests = st.tuples(
    st.sampled_from(["quick", "slow"]),
    st.integers(1, 8),
    st.one_of(st.sampled_from([0.02, 0.05]), st.floats(0.001, 0.1)),
)
actions = st.one_of(
    st.tuples(st.just("add"), requests),
    st.tuples(st.just("try"), requests),
    st.tuples(st.just("try and add"), requests),
    st.tuples(st.just("remove"), st.integers(0, 63)),
    st.tuples(st.just("take"), st.tuples(st.integers(1, 8), st.booleans())),
    st.tuples(st.just("look at"), st.tuples(st.integers(1, 8), st.booleans())),
)


def due(lanes: dict[str, Lane], workers: int) -> list[Due]:
    kinds = KINDS[:workers]
    return [
        Due(
            lane,
            [
                (SPEEDS.of(variant, kind), [n for n, of in enumerate(kinds) if of == kind])
                for kind in dict.fromkeys(kinds)
            ],
        )
        for variant, lane in lanes.items()
        if len(lane)
    ]


def copy(lane: Lane) -> Lane:
    return Lane(lane.variant, lane.form, lane.all)


def without(lanes: dict[str, Lane], taken: set[int], last_s: float) -> dict[str, Lane]:
    rest = {}
    for variant, lane in lanes.items():
        are_first = all(request.id in taken for request in lane.all[: len(taken)])
        rest[variant] = (
            lane.without_first(min(len(taken), len(lane)))
            if are_first
            else lane.without(taken, last_s)
        )
    return rest


def lines_of(layout: Layout) -> list[list[tuple[Any, ...]]]:
    """What workers compute, as plain data."""
    return [
        [(step.due_s, step.cost, step.variant, step.lane.form, step.requests) for step in line]
        for line in layout.lines
    ]


class Both:
    """What is remembered against what is made anew."""

    def __init__(self, parts: int, workers: int) -> None:
        self.packing, self.parts, self.workers = Packing(parts), parts, workers

    def check(self, layout: Layout, lanes: list[Due]) -> None:
        fresh = [Due(copy(each.lane), each.able) for each in lanes]
        expected = Packing(self.parts).layout(fresh, self.workers)
        assert lines_of(layout) == lines_of(expected)
        assert layout.starts_s == expected.starts_s


@given(st.sampled_from([1, 4, 1024]), st.integers(1, 3), st.lists(actions, max_size=40))
def test_what_is_remembered_is_what_is_made_anew(
    parts: int, workers: int, todo: list[tuple[str, Any]]
) -> None:
    both = Both(parts, workers)
    lanes = {"quick": Lane("quick", "pixels"), "slow": Lane("slow", "pixels")}
    for number, (what, about) in enumerate(todo):
        held = sorted(
            (request for lane in lanes.values() for request in lane.all),
            key=lambda request: (request.deadline_s, request.id),
        )
        if what in ("add", "try", "try and add"):
            variant, rows, deadline_s = about
            request = Request(number, "family", rows, 0.0, deadline_s)
            if "try" in what:
                more = lanes | {variant: lanes[variant].with_one(request)}
                tried = due(more, workers)
                layout = both.packing.layout_with_one(tried, workers, request)
                both.check(layout, tried)
            if "add" in what:
                lanes[variant] = lanes[variant].added(request)
                both.packing.added(request)
        elif not held:
            continue
        elif what == "remove":
            gone = held[about % len(held)]
            for variant, lane in lanes.items():
                if lane.has(gone):
                    lanes[variant] = lane.without_one(gone)
            both.packing.changed(gone.deadline_s)
        else:
            count, every_other = about
            some = held[: count * (1 + every_other) : 1 + every_other]
            last_s = some[-1].deadline_s
            rest = without(lanes, {request.id for request in some}, last_s)
            layout = both.packing.layout_without(due(rest, workers), workers, last_s)
            both.check(layout, due(rest, workers))
            if what == "take":
                lanes = rest
                both.packing.changed(last_s)
        both.check(both.packing.layout(due(lanes, workers), workers), due(lanes, workers))


def test_nothing_is_laid_out_that_nobody_can_compute() -> None:
    lane = Lane("quick", "pixels", [Request(1, "family", 1, 0.0, 1.0)])
    packing = Packing(1)
    assert packing.layout([Due(lane, [])], 2).starts_s == [-math.inf, -math.inf]
    assert packing.layout([], 2).starts_s == [math.inf, math.inf]
    assert [len(line) for line in packing.layout(due({"quick": lane}, 2), 2).lines] == [1, 0]
