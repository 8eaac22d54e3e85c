import pytest

from rootserve.server.core.batch_size import BatchSize, choose
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


def dispatched(
    latency: tuple[tuple[int, float], ...], requests: int, limits: Limits
) -> tuple[list[int], float]:
    """Rows of the batches that one idle worker gets at once, and when to ask again."""
    scheduler = Scheduler(limits)
    scheduler.model_measured("m", latency)
    scheduler.worker_ready("w", ["m"])
    for number in range(requests):
        assert scheduler.offer(Request(number, "m", 1, 100.0), 100.0) is None
    decisions = scheduler.poll(100.0)
    return [batch.rows for batch in decisions.dispatches], decisions.wake_s


def test_batches_are_no_larger_than_pays() -> None:
    assert dispatched(SLOW, 20, Limits())[0] == [4, 4]
    assert dispatched(STEEP, 20, Limits())[0] == [20]


def test_sizes_that_the_operator_prefers_go_before_what_was_measured() -> None:
    assert dispatched(SLOW, 20, Limits(preferred_rows=(16,)))[0][0] == 20


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
        assert scheduler.offer(Request(number, "m", 1, 100.0), 100.0) is None
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
