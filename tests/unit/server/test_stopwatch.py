"""What is left of a time when what others took is taken off."""

import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.workers import stopwatch
from rootserve.server.workers.stopwatch import Spent, Stopwatch, undisturbed, waiting_ns

SECONDS = st.floats(0.0, 100.0)


@pytest.mark.parametrize(
    ("spent", "threads", "expected"),
    [
        # Nobody waited: it is what the wall clock says, whatever the threads did.
        (Spent(2.0, 4.0, 0.0), 2, 2.0),
        (Spent(2.0, 0.1, 0.0), 2, 2.0),
        # One thread computes and waits as long.
        (Spent(2.0, 1.0, 1.0), 2, 1.0),
        # Two do so side by side.
        (Spent(2.0, 2.0, 2.0), 2, 1.0),
        # One got more than the other, which left it more of the work.
        (Spent(4.0, 3.0, 5.0), 2, 1.5),
        # Both on one processor, and a third that waits for them.
        (Spent(4.0, 4.0, 6.0), 2, 2.0),
        # It mostly sleeps.
        (Spent(10.0, 0.5, 0.5), 8, 9.5),
        # More computes in this process than is timed: no more than the wall clock says.
        (Spent(1.0, 4.0, 0.0), 2, 1.0),
        (Spent(0.0, 0.0, 0.0), 2, 0.0),
    ],
)
def test_what_threads_waited_for_processors_is_taken_off(
    spent: Spent, threads: int, expected: float
) -> None:
    assert undisturbed(spent, threads) == pytest.approx(expected)


@given(SECONDS, SECONDS, SECONDS, st.integers(1, 64))
def test_it_is_never_negative_nor_more_than_the_wall_clock_says(
    wall_s: float, computing_s: float, waiting_s: float, threads: int
) -> None:
    assert 0.0 <= undisturbed(Spent(wall_s, computing_s, waiting_s), threads) <= wall_s


@given(st.floats(0.001, 10.0), st.floats(0.0, 100.0), st.integers(1, 64))
def test_threads_that_all_wait_alike_take_what_they_compute(
    each_s: float, waits_s: float, threads: int
) -> None:
    spent = Spent(each_s + waits_s, threads * each_s, threads * waits_s)
    assert undisturbed(spent, threads) == pytest.approx(each_s)


def test_every_thread_of_the_process_is_looked_at() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    before = set(waiting_ns())
    thread.start()
    try:
        assert set(waiting_ns()) - before == {str(thread.native_id)}
    finally:
        over.set()
        thread.join()


def test_what_is_short_is_done_until_there_is_something_to_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spent = {"wall": 0.0, "computing": 0.0, "waiting": 0}
    clock = SimpleNamespace(
        perf_counter=lambda: spent["wall"], process_time=lambda: spent["computing"]
    )
    monkeypatch.setattr(stopwatch, "time", clock)
    monkeypatch.setattr(stopwatch, "waiting_ns", lambda: {"1": spent["waiting"], "2": 0})

    def run() -> None:
        spent["wall"] += 0.0015
        spent["computing"] += 0.0005
        spent["waiting"] += 1_000_000

    assert Stopwatch(1).seconds(run) == pytest.approx(0.0005)
    assert spent["wall"] == pytest.approx(3 * 0.0015)
    # On a GPU what the waiting thread does says nothing.
    assert Stopwatch(None).seconds(run) == pytest.approx(0.0015)
