import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.core.batch_size import (
    BatchSize,
    Latency,
    choose,
    is_sure,
    may_grow,
    settle,
)
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Limits, Scheduler

# Twice the rows, twice the time: a processor that is full with one image.
FLAT = tuple((rows, 0.001 * rows) for rows in (1, 2, 4, 8, 16, 32))
# So slow that a batch of eight would keep its first row waiting.
SLOW = tuple((rows, 0.008 * rows) for rows, _ in FLAT)
# Nearly the same time for any number of rows: a GPU.
STEEP = tuple((rows, 0.002 + 0.00001 * rows) for rows in (1, 2, 4, 8, 16, 32))


@pytest.mark.parametrize(
    ("latency", "expected"),
    [
        (FLAT, BatchSize(32, waits=False)),
        (SLOW, BatchSize(4, waits=False)),
        (STEEP, BatchSize(32, waits=True)),
        # Two processors: the second one is idle while there is one image.
        (((1, 0.001), (2, 0.0012), (4, 0.0024), (8, 0.0048)), BatchSize(8, waits=True)),
        # A batch that costs more than its rows alone.
        (((1, 0.01), (2, 0.03), (4, 0.07)), BatchSize(1, waits=False)),
        (((1, 0.5),), BatchSize(1, waits=False)),
        (((1, 0.0),), BatchSize(1, waits=False)),
        # Where a few of the times are noise.
        (
            ((1, 0.0008), (2, 0.0016), (4, 0.0027), (8, 0.0065), (16, 0.0125), (32, 0.024)),
            BatchSize(32, waits=False),
        ),
        # Short, but its rows take twice as long as in smaller batches.
        (((1, 0.001), (2, 0.0018), (4, 0.0036), (8, 0.0144)), BatchSize(4, waits=True)),
    ],
)
def test_a_batch_is_as_large_as_it_is_worth(
    latency: tuple[tuple[int, float], ...], expected: BatchSize
) -> None:
    assert choose(latency) == expected


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="no latency was measured"):
        choose(())


SIZES = (1, 2, 4, 8, 16, 32)
# How many times as long something takes while others compute.
DISTURBED = st.floats(1.0, 10.0)


@st.composite
def models(draw: st.DrawFn) -> Latency:
    """Models on a processor: each batch costs something, each row costs much more than that."""
    batch_s, row_s = draw(st.floats(0.0, 0.0005)), draw(st.floats(0.0002, 0.2))
    return tuple((rows, batch_s + row_s * rows) for rows in SIZES)


def steps(one: Latency, other: Latency) -> float:
    """How many times the batches of ``one`` are to be doubled or halved to be those of ``other``."""
    return abs(math.log2(choose(one).rows / choose(other).rows))


@pytest.mark.parametrize("latency", [FLAT, SLOW, STEEP])
def test_turns_that_nothing_disturbed_tell_what_there_is(latency: Latency) -> None:
    turn = [seconds for _, seconds in latency]
    for turns in ([turn], [turn] * 5):
        assert [s for _, s in settle(SIZES, turns)] == pytest.approx(turn)


@given(models(), st.lists(DISTURBED, min_size=4, max_size=4))
def test_a_turn_that_took_longer_as_a_whole_changes_nothing(
    latency: Latency, slower: list[float]
) -> None:
    turn = [seconds for _, seconds in latency]
    turns = [turn, *([factor * seconds for seconds in turn] for factor in slower)]
    assert [s for _, s in settle(SIZES, turns)] == pytest.approx(turn)


@given(
    models(),
    st.lists(st.lists(DISTURBED, min_size=6, max_size=6), min_size=4, max_size=4),
    st.integers(0, 4),
)
def test_as_long_as_one_turn_is_not_disturbed_the_limit_is_right_within_a_step(
    latency: Latency, disturbed: list[list[float]], at: int
) -> None:
    turn = [seconds for _, seconds in latency]
    turns = [[s * factor for s, factor in zip(turn, row, strict=True)] for row in disturbed]
    turns.insert(at, turn)
    assert steps(settle(SIZES, turns), latency) <= 1


@given(
    models(),
    st.lists(st.lists(st.floats(0.97, 1.03), min_size=6, max_size=6), min_size=1, max_size=5),
)
def test_noise_in_every_turn_moves_the_limit_by_a_step_at_most(
    latency: Latency, noise: list[list[float]]
) -> None:
    turn = [seconds for _, seconds in latency]
    turns = [[s * factor for s, factor in zip(turn, row, strict=True)] for row in noise]
    assert steps(settle(SIZES, turns), latency) <= 1


def test_rows_that_take_longer_in_every_turn_are_found() -> None:
    turns = [
        [one, 1.9 * one, 3.8 * one * late, 15 * one] for one in (0.001, 0.002) for late in (1, 1.2)
    ]
    assert choose(settle(SIZES[:4], turns)).rows == 4


@pytest.mark.parametrize(
    ("tried", "grows"),
    [
        (FLAT[:5], True),
        (FLAT, True),
        # Long, and no better than smaller ones.
        (((1, 0.011), (2, 0.022)), True),
        (((1, 0.011), (2, 0.022), (4, 0.044)), False),
        # As long, but more of it is computed at once.
        (((1, 0.05), (2, 0.06), (4, 0.082)), True),
        # Nothing is known yet of how much more a larger one gives.
        (((1, 0.2),), True),
        (((1, 0.4),), False),
        (((1, 0.1), (2, 0.11), (4, 0.13)), False),
    ],
)
def test_sizes_are_tried_as_long_as_they_could_be_chosen(tried: Latency, grows: bool) -> None:
    assert may_grow(tried) is grows


@given(models(), st.lists(st.floats(1.0, 1.9), min_size=6, max_size=6))
def test_no_size_is_left_out_that_would_be_chosen(latency: Latency, disturbed: list[float]) -> None:
    times = [s * factor for (_, s), factor in zip(latency, disturbed, strict=True)]
    tried = 1
    while tried < len(SIZES) and may_grow(list(zip(SIZES, times, strict=True))[:tried]):
        tried += 1
    assert SIZES[tried - 1] >= choose(latency).rows


def test_it_is_sure_once_two_further_turns_changed_nothing() -> None:
    times = [s for _, s in SLOW]
    slow = [3 * s for s in times]
    assert not is_sure(SIZES, [times])
    assert not is_sure(SIZES, [times, times])
    assert is_sure(SIZES, [times, times, times])
    assert not is_sure(SIZES, [slow, times, times])  # the second one halves the limit
    assert is_sure(SIZES, [slow, times, times, times])
    assert is_sure(SIZES[:1], [times[:1]])  # there is nothing to choose


@pytest.mark.parametrize(
    ("sizes", "turns", "came"),
    [((), [], "[]"), (SIZES, [], "[]"), (SIZES, [[0.1] * 6, [0.1] * 5], "[6, 5]")],
)
def test_turns_that_lack_times_are_an_error(
    sizes: tuple[int, ...], turns: list[list[float]], came: str
) -> None:
    with pytest.raises(ValueError, match="times came") as error:
        settle(sizes, turns)
    assert f"turns of {came} times came, expected one or more, each of {len(sizes)}" in str(
        error.value
    )


def dispatched(
    latency: tuple[tuple[int, float], ...], requests: int, limits: Limits
) -> tuple[list[int], float]:
    """Rows of the batches that one idle worker gets at once, and when to ask again."""
    scheduler = Scheduler(limits)
    scheduler.model_measured("m", latency)
    scheduler.worker_ready("w", ["m"])
    for number in range(requests):
        assert scheduler.offer(Request(number, "m", 1, 100.0), 100.0).declined is None
    decisions = scheduler.poll(100.0)
    return [batch.rows for batch in decisions.dispatches], decisions.wake_s


def test_batches_are_no_larger_than_pays() -> None:
    assert dispatched(SLOW, 20, Limits())[0] == [4, 4]
    assert dispatched(STEEP, 20, Limits())[0] == [20]


def test_a_request_larger_than_pays_goes_alone() -> None:
    scheduler = Scheduler(Limits())
    scheduler.model_measured("m", SLOW)
    scheduler.worker_ready("w", ["m"])
    scheduler.offer(Request(1, "m", 20, 100.0), 100.0)
    scheduler.offer(Request(2, "m", 1, 100.0), 100.0)
    assert scheduler.poll(100.0).dispatches[0].rows == 20


def test_an_idle_worker_waits_only_for_what_pays() -> None:
    limits = Limits(max_delay_s=0.01)
    assert dispatched(FLAT, 1, limits)[0] == [1]
    batches, wake_s = dispatched(STEEP, 1, limits)
    assert batches == []
    assert wake_s == pytest.approx(100.01)


def test_what_was_measured_tells_how_long_batches_take() -> None:
    scheduler = Scheduler(Limits())
    scheduler.model_measured("m", FLAT)
    assert scheduler.durations.predict("m", 8) == pytest.approx(0.008)


def test_each_kind_of_worker_gets_batches_of_its_own_size_and_its_own_time_to_hang() -> None:
    scheduler = Scheduler(Limits(batches_ahead=0, hang_s=0.1))
    scheduler.model_measured("m", STEEP, "fast")
    scheduler.model_measured("m", SLOW, "slow")
    scheduler.worker_ready("s", ["m"], "slow")
    scheduler.worker_ready("f", ["m"], "fast")
    for number in range(64):
        assert scheduler.offer(Request(number, "m", 1, 100.0), 100.0).declined is None
    rows = {batch.worker: batch.rows for batch in scheduler.poll(100.0).dispatches}
    assert rows == {"s": 4, "f": 32}
    # Four rows take 32 ms on the slow one, 32 rows 2.3 ms on the fast one; both times 20, or 0.1 s.
    assert scheduler.poll(100.2).hung == ("f",)
    assert scheduler.poll(100.7).hung == ("s",)


def test_a_deadline_is_judged_by_the_worker_that_is_given_the_batch() -> None:
    scheduler = Scheduler(Limits())
    scheduler.model_measured("m", SLOW, "slow")
    scheduler.model_measured("m", STEEP, "fast")
    scheduler.worker_ready("s", ["m"], "slow")
    for number in range(4):
        scheduler.offer(Request(number, "m", 1, 100.0, 100.02), 100.0)
    (batch,) = scheduler.poll(100.0).dispatches
    assert batch.rows == 2
