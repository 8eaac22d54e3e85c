"""The processors are shared: no more threads than processors, none of them for two workers."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.placement import MOST_LANES, MOST_WORKERS, OptimizeFor, Placement, place

OPTIMIZE_FOR: tuple[OptimizeFor, ...] = ("adaptive", "latency", "throughput")


@pytest.mark.parametrize(
    ("processors", "optimize_for", "workers", "threads", "expected"),
    [
        ((0, 1), "adaptive", 0, 0, [Placement(2, lanes=2)]),
        ((0,), "adaptive", 0, 0, [Placement(1)]),
        ((0, 1), "adaptive", 2, 0, [Placement(1), Placement(1)]),
        (tuple(range(64)), "adaptive", 0, 0, [Placement(64, lanes=MOST_LANES)]),
        (tuple(range(8)), "adaptive", 2, 0, [Placement(4, lanes=4)] * 2),
        ((0, 1), "latency", 0, 0, [Placement(2)]),
        ((0, 1), "latency", 2, 0, [Placement(1), Placement(1)]),
        ((0, 1), "throughput", 0, 0, [Placement(1, (0,)), Placement(1, (1,))]),
        ((3, 5, 6), "throughput", 1, 0, [Placement(3, (3, 5, 6))]),
        ((3, 5, 6), "throughput", 0, 2, [Placement(2, (3, 5))]),
        ((4,), "throughput", 0, 0, [Placement(1, (4,))]),
        # More than there is, as asked for: nothing is pinned.
        ((0, 1), "throughput", 3, 0, [Placement(1)] * 3),
        ((0, 1), "throughput", 0, 4, [Placement(4)]),
    ],
)
def test_shares(
    processors: tuple[int, ...],
    optimize_for: OptimizeFor,
    workers: int,
    threads: int,
    expected: list[Placement],
) -> None:
    available = len(processors)
    assert place(available, processors, optimize_for, workers, threads) == expected
    # As many, but of a larger machine: the same shares, and nothing is pinned.
    shared = [placement._replace(processors=()) for placement in expected]
    assert place(available, (), optimize_for, workers, threads) == shared


@given(
    st.lists(st.integers(0, 1023), min_size=1, max_size=256, unique=True),
    st.sampled_from(OPTIMIZE_FOR),
)
def test_what_is_chosen_fits_the_machine(processors: list[int], optimize_for: OptimizeFor) -> None:
    placements = place(len(processors), processors, optimize_for)
    assert 1 <= len(placements) <= MOST_WORKERS
    assert sum(placement.threads for placement in placements) <= len(processors)
    pinned = list(chain.from_iterable(placement.processors for placement in placements))
    assert len(pinned) == len(set(pinned))
    assert set(pinned) <= set(processors)
    if optimize_for == "throughput":
        assert all(len(processors) == threads for threads, processors, _ in placements)
