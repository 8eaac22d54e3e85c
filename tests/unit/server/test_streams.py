"""Simulated machines with many processors: the number of images at a time that is best there is found."""

import pytest

from rootserve.server.engines.streams import MOST_STREAMS, best_streams


class Machine:
    """``processors``, of which one image can use a share; memory for ``bandwidth`` images at a time."""

    def __init__(self, processors: int, serial: float, bandwidth: float = 1e9) -> None:
        self.processors, self.serial, self.bandwidth = processors, serial, bandwidth
        self.tried: list[int] = []

    def rate(self, streams: int) -> float:
        """Images per second: Amdahl's law for the threads of an image, and what memory lets through."""
        self.tried.append(streams)
        threads = self.processors / streams
        image_s = self.serial + (1.0 - self.serial) / threads
        slowed = max(1.0, streams / self.bandwidth)
        return streams / (image_s * slowed)

    def best(self) -> int:
        return best_streams(self.processors, self.rate)


@pytest.mark.parametrize("processors", [1, 2])
def test_where_there_is_nothing_to_choose_nothing_is_measured(processors: int) -> None:
    machine = Machine(processors, 0.1)
    assert machine.best() == processors
    assert not machine.tried


@pytest.mark.parametrize("processors", [4, 16, 64])
def test_an_image_a_thread_where_threads_wait_for_one_another(processors: int) -> None:
    machine = Machine(processors, serial=0.1)
    assert machine.best() == processors
    assert len(machine.tried) <= 3, "no more than shows it"


@pytest.mark.parametrize(("processors", "bandwidth", "expected"), [(16, 4, 4), (64, 8, 8)])
def test_fewer_images_at_a_time_where_memory_is_what_they_wait_for(
    processors: int, bandwidth: float, expected: int
) -> None:
    machine = Machine(processors, serial=0.01, bandwidth=bandwidth)
    rates = {streams: machine.rate(streams) for streams in (2, 4, 8, 16, 32, 64)}
    best = machine.best()
    assert expected <= best <= expected * 2
    allowed = {n: found for n, found in rates.items() if n <= processors}
    assert rates[best] >= 0.98 * max(allowed.values())


def test_of_equally_good_ones_the_fewest_whose_images_are_done_sooner() -> None:
    assert Machine(16, serial=0.0).best() == 2


def test_more_than_one_process_can_hand_over_are_not_tried() -> None:
    machine = Machine(256, serial=0.1)
    machine.best()
    assert max(machine.tried) == MOST_STREAMS
