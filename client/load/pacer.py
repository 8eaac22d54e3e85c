"""When an open loop's requests depart. Pure: is told the time, and the same seed departs alike."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from client.load.options import Distribution


class Schedule(Protocol):
    """The instants of all departures, in seconds since the start, never decreasing."""

    def due_s(self, n: int) -> float:
        """Instant of departure `n`, counted from 0."""


class ConstantSchedule:
    """Departures at equal distances, the first at 0."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def due_s(self, n: int) -> float:
        """Instant of departure `n`, counted from 0."""
        # From n and not by adding up, so that hours later no error has gathered.
        return n / self._rate


class PoissonSchedule:
    """Departures as of many independent users: the gaps are exponential, the first included."""

    _BLOCK = 4096

    def __init__(self, rate: float, seed: int) -> None:
        self._mean_gap_s = 1.0 / rate
        self._random = np.random.default_rng(seed)
        self._blocks: list[NDArray[np.float64]] = []
        self._end_s = 0.0

    def due_s(self, n: int) -> float:
        """Instant of departure `n`, counted from 0."""
        block, offset = divmod(n, self._BLOCK)
        while len(self._blocks) <= block:
            gaps = self._random.exponential(self._mean_gap_s, self._BLOCK)
            instants = self._end_s + np.cumsum(gaps)
            self._blocks.append(instants)
            self._end_s = float(instants[-1])
        return float(self._blocks[block][offset])


@dataclass(frozen=True, slots=True)
class Departure:
    """The next departure: when it is due, and how long from now that is (0 if it is overdue)."""

    due_s: float
    wait_s: float


def schedule_for(distribution: Distribution, rate: float, seed: int) -> Schedule:
    """The schedule of `rate` departures per second."""
    if distribution == Distribution.CONSTANT:
        return ConstantSchedule(rate)
    return PoissonSchedule(rate, seed)


def next_departure(
    schedule: Schedule, elapsed_s: float, sent: int, end_s: float = math.inf
) -> Departure | None:
    """The departure after the `sent` first ones, seen `elapsed_s` after the start.

    One that is overdue keeps its instant: the schedule never gives way to a slow sender.

    Returns:
        None when it would fall at `end_s` or later.
    """
    due_s = schedule.due_s(sent)
    if due_s >= end_s:
        return None
    return Departure(due_s, max(0.0, due_s - elapsed_s))
