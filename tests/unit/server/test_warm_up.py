"""How a worker times the batches of a model that it has loaded, by a clock that the test moves."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from rootserve.server.core.batch_size import Latency, choose
from rootserve.server.engines.base import Images
from rootserve.server.workers import loaded
from rootserve.server.workers.loaded import LoadedModel, Warm


class Computer:
    """Takes ``row_s`` for each row, and more while others compute: each other ``period_s`` of the time."""

    name, precision = "fake", "fp32"

    def __init__(self, row_s: float, period_s: float = 0.0) -> None:
        self.row_s, self.period_s = row_s, period_s
        self.now_s = 0.0
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


def warmed(computer: Computer, monkeypatch: pytest.MonkeyPatch, max_rows: int = 32) -> Warm:
    clock = SimpleNamespace(monotonic=lambda: computer.now_s, perf_counter=lambda: computer.now_s)
    monkeypatch.setattr(loaded, "time", clock)
    return LoadedModel(computer, (3, 8, 8), 10, 8).warm_up(max_rows)  # type: ignore[arg-type]


def warm_up(computer: Computer, monkeypatch: pytest.MonkeyPatch, max_rows: int = 32) -> Latency:
    return warmed(computer, monkeypatch, max_rows).latency


def test_each_size_is_run_before_it_is_timed_and_then_in_five_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computer = Computer(0.005)
    latency = warm_up(computer, monkeypatch, 5)
    turn = [1, 2, 4, 5]
    assert computer.runs == [*turn, *turn, *turn[::-1], *turn, *turn[::-1], *turn]
    assert [rows for rows, _ in latency] == turn
    assert [seconds for _, seconds in latency] == pytest.approx([0.005 * rows for rows in turn])


def test_short_batches_are_computed_several_times_in_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computer = Computer(0.001)
    warm_up(computer, monkeypatch, 2)
    assert computer.runs[2:8] == [1, 1, 1, 1, 2, 2]


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


def test_what_an_image_takes_beside_others_is_timed_against_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert warmed(Streaming(0.005), monkeypatch, 4).speed_up == pytest.approx(2.0)
    disturbed = warmed(Streaming(0.0005, 0.05), monkeypatch)
    assert 1.0 < disturbed.speed_up < 4.0
    assert warmed(Computer(0.005), monkeypatch, 4).speed_up == 1.0
