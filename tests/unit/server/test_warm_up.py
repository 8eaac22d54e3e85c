"""How a worker times the batches of a model that it has loaded, by clocks that the test moves."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from rootserve.server.core.batch_size import Latency, choose
from rootserve.server.engines.base import Images
from rootserve.server.workers import loaded, stopwatch
from rootserve.server.workers.loaded import LoadedModel, Warm


class Computer:
    """Takes ``row_s`` for each row, and more while others compute: each other ``period_s`` of the time."""

    name, precision = "fake", "fp32"

    def __init__(self, row_s: float, period_s: float = 0.0) -> None:
        self.row_s, self.period_s = row_s, period_s
        self.now_s = self.computing_s = self.waiting_s = 0.0
        self.runs: list[int] = []

    def run(self, images: Images) -> NDArray[np.float32]:
        self.runs.append(len(images))
        for _ in range(len(images)):
            disturbed = self.period_s and self.now_s // self.period_s % 2
            self.now_s += self.row_s * (3 if disturbed else 1)
        return np.zeros((len(images), 10), np.float32)


class Streaming(Computer):
    """A row beside others takes twice as long as one alone."""

    streams = 2

    def run_beside(self, images: Images) -> NDArray[np.float32]:
        self.run(images)
        return self.run(images)


class Shared:
    """Two processors, a thread of the model's on each, which have ``neighbours`` each.

    A thread computes for 3 ms and waits then while each neighbour does, mostly for as long, at times for much
    longer. Its images take up to twice ``row_s``: others have had the caches. One image alone is shared by
    the threads; the one that is done waits for the other, a millisecond of it by computing.
    """

    name, precision = "fake", "fp32"

    def __init__(self, row_s: float, neighbours: int, seed: int) -> None:
        self.row_s, self.neighbours = row_s, neighbours
        self.now_s = self.computing_s = self.waiting_s = 0.0
        self._random = random.Random(seed)
        self._slices_s = [0.0, 0.0]

    def run(self, images: Images) -> NDArray[np.float32]:
        ends_s = [self.now_s, self.now_s]
        for _ in range(len(images)):
            cost_s = self.row_s * (1.0 + min(1.0, 0.02 * self._random.paretovariate(1.0)))
            threads = (0, 1) if len(images) == 1 else (ends_s.index(min(ends_s)),)
            for thread in threads:
                ends_s[thread] = self._compute(thread, ends_s[thread], cost_s / len(threads))
        if len(images) == 1:
            self.computing_s += min(0.001, max(ends_s) - min(ends_s))
        self.now_s = max(ends_s)
        return np.zeros((len(images), 10), np.float32)

    def _compute(self, thread: int, from_s: float, work_s: float) -> float:
        """When ``thread`` is done with ``work_s``, begun at ``from_s``."""
        self.computing_s += work_s
        end_s = from_s + work_s
        while self.neighbours and work_s > self._slices_s[thread]:
            work_s -= self._slices_s[thread]
            self._slices_s[thread] = 0.003
            waits_s = 0.003 * self.neighbours * min(20.0, self._random.paretovariate(1.5))
            self.waiting_s += waits_s
            end_s += waits_s
        self._slices_s[thread] -= min(work_s, self._slices_s[thread])
        return end_s


def warmed(
    computer: Computer | Shared,
    monkeypatch: pytest.MonkeyPatch,
    max_rows: int = 32,
    threads: int | None = None,
) -> Warm:
    clock = SimpleNamespace(
        monotonic=lambda: computer.now_s,
        perf_counter=lambda: computer.now_s,
        process_time=lambda: computer.computing_s,
    )
    monkeypatch.setattr(loaded, "time", clock)
    monkeypatch.setattr(stopwatch, "time", clock)
    monkeypatch.setattr(stopwatch, "waiting_ns", lambda: {"1": round(1e9 * computer.waiting_s)})
    model = LoadedModel(computer, (3, 8, 8), 10, 8)  # type: ignore[arg-type]
    return model.warm_up(max_rows, threads)


def limit(computer: Shared, monkeypatch: pytest.MonkeyPatch, threads: int | None) -> int:
    """How many rows batches of ``computer``'s model have at most."""
    return choose(warmed(computer, monkeypatch, 64, threads).latency).rows


def warm_up(computer: Computer, monkeypatch: pytest.MonkeyPatch, max_rows: int = 32) -> Latency:
    return warmed(computer, monkeypatch, max_rows).latency


def test_each_size_is_run_before_it_is_timed_and_then_in_turns_until_they_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computer = Computer(0.005)
    latency = warm_up(computer, monkeypatch, 5)
    turn = [1, 2, 4, 5]
    assert computer.runs == [1, 1, 2, 2, 4, 4, 5, 5, *turn[::-1], *turn]
    assert [rows for rows, _ in latency] == turn
    assert [seconds for _, seconds in latency] == pytest.approx([0.005 * rows for rows in turn])


def test_short_batches_are_computed_several_times_in_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computer = Computer(0.001)
    warm_up(computer, monkeypatch, 2)
    assert computer.runs[:8] == [1, 1, 1, 1, 1, 2, 2, 2]


def test_no_size_is_tried_that_is_too_long_to_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    latency = warm_up(Computer(0.011), monkeypatch, 64)
    assert [rows for rows, _ in latency] == [1, 2, 4]
    assert choose(latency).rows == 2


def test_a_slow_model_is_not_timed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    computer = Computer(0.5)
    assert warm_up(computer, monkeypatch) == ((1, pytest.approx(0.5)),)
    assert computer.runs == [1, 1]


@pytest.mark.parametrize("period_s", [0.003, 0.01, 0.02, 0.05, 0.11, 0.3])
def test_the_limit_is_the_same_while_others_compute(
    monkeypatch: pytest.MonkeyPatch, period_s: float
) -> None:
    latency = warm_up(Computer(0.0005, period_s), monkeypatch)
    assert choose(latency).rows >= 16


ROW_S = [0.0002, 0.0009, 0.0011, 0.0013, 0.0024, 0.006, 0.03]


@pytest.mark.parametrize("row_s", ROW_S)
@pytest.mark.parametrize("neighbours", [0, 1, 8])
def test_twenty_loads_agree_within_a_step_whoever_else_computes(
    monkeypatch: pytest.MonkeyPatch, row_s: float, neighbours: int
) -> None:
    alone = limit(Shared(row_s, 0, 0), monkeypatch, 2)
    found = [limit(Shared(row_s, neighbours, seed), monkeypatch, 2) for seed in range(20)]
    assert max(found) <= 2 * min(found)
    assert {max(found), min(found)} <= {alone // 2, alone, 2 * alone}


def test_by_the_wall_clock_the_limit_would_be_that_of_a_slower_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What the neighbours here do is enough to be noticed.
    alone = limit(Shared(0.0024, 0, 0), monkeypatch, None)
    found = [limit(Shared(0.0024, 8, seed), monkeypatch, None) for seed in range(20)]
    assert 2 * max(found) < alone


def test_what_an_image_takes_beside_others_is_timed_against_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert warmed(Streaming(0.005), monkeypatch, 4).speed_up == pytest.approx(2.0)
    disturbed = warmed(Streaming(0.0005, 0.05), monkeypatch)
    assert 1.0 < disturbed.speed_up < 4.0
    assert warmed(Computer(0.005), monkeypatch, 4).speed_up == 1.0
