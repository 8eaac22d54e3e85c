"""When an open loop's requests depart. Pure: is told the time, and the same seed departs alike.

A schedule joins two things: a rate profile (how many departures are due by when, on average) and a
spread (at equal distances, or as of many independent users). A replayed trace is its own schedule.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Schedule(Protocol):
    """The instants of all departures, in seconds since the start, never decreasing."""

    def due_s(self, n: int) -> float:
        """Instant of departure `n`, counted from 0; infinity when there is none."""


class RateProfile(Protocol):
    """How the rate of departures goes over time."""

    def reached_s(self, departures: float) -> float:
        """The instant by which so many departures are due, on average."""


@dataclass(frozen=True, slots=True)
class SteadyRate:
    """The same rate always, in departures per second."""

    rate: float

    def reached_s(self, departures: float) -> float:
        """See `RateProfile`."""
        return departures / self.rate


@dataclass(frozen=True, slots=True)
class RampRate:
    """`first` departures per second until `from_s`, `last` ones `over_s` later; linear between."""

    first: float
    last: float
    from_s: float
    over_s: float

    def reached_s(self, departures: float) -> float:
        """See `RateProfile`."""
        after = departures - self.first * self.from_s
        if after < 0:
            return departures / self.first
        on_ramp = (self.first + self.last) / 2 * self.over_s
        if after > on_ramp:
            end_s = self.from_s + self.over_s
            return end_s + (after - on_ramp) / self.last if self.last else math.inf
        # first * u + slope / 2 * u**2 = after, solved so that a slope of 0 is no exception.
        slope = (self.last - self.first) / self.over_s
        root = math.sqrt(max(0.0, self.first**2 + 2 * slope * after))
        return self.from_s + (2 * after / (self.first + root) if after else 0.0)


class StepRate:
    """One rate after the other, each for its time; the first one also before, the last one on."""

    def __init__(self, steps: Sequence[tuple[float, float]], from_s: float) -> None:
        """Steps are (departures per second, seconds); the first one begins at `from_s`."""
        rates = [rate for rate, _ in steps]
        self._rates = [rates[0], *rates]
        lengths_s = [from_s, *(seconds for _, seconds in steps)]
        self._starts_s = [0.0, *accumulate(lengths_s)][:-1]
        counts = (rate * length for rate, length in zip(self._rates, lengths_s, strict=True))
        self._counts = [0.0, *accumulate(counts)][:-1]

    def reached_s(self, departures: float) -> float:
        """See `RateProfile`."""
        # The first step at whose end more is due: one with rate 0 is passed over.
        step = bisect.bisect_right(self._counts, departures) - 1
        if not self._rates[step]:
            return self._starts_s[step] if departures <= self._counts[step] else math.inf
        return self._starts_s[step] + (departures - self._counts[step]) / self._rates[step]


class ConstantSchedule:
    """Departures at equal distances in terms of the profile, the first at once."""

    def __init__(self, profile: RateProfile) -> None:
        self._profile = profile

    def due_s(self, n: int) -> float:
        """See `Schedule`."""
        # From n and not by adding up, so that hours later no error has gathered.
        return self._profile.reached_s(n)


class PoissonSchedule:
    """Departures as of many independent users: the gaps are exponential, the first included.

    With a rate that changes, a unit Poisson process is stretched by the profile, which yields the
    inhomogeneous Poisson process of that rate (Cinlar, Introduction to Stochastic Processes, 1975).
    """

    _BLOCK = 4096

    def __init__(self, profile: RateProfile, seed: int) -> None:
        self._profile = profile
        self._random = np.random.default_rng(seed)
        self._blocks: list[NDArray[np.float64]] = []
        self._end = 0.0

    def due_s(self, n: int) -> float:
        """See `Schedule`."""
        block, offset = divmod(n, self._BLOCK)
        while len(self._blocks) <= block:
            counts = self._end + np.cumsum(self._gaps(self._random))
            self._blocks.append(counts)
            self._end = float(counts[-1])
        return self._profile.reached_s(float(self._blocks[block][offset]))

    def _gaps(self, random: np.random.Generator) -> NDArray[np.float64]:
        """The next gaps, 1 on average."""
        return random.exponential(1.0, self._BLOCK)


class GammaSchedule(PoissonSchedule):
    """Departures in bursts: the gaps are gamma distributed, with a squared coefficient of variation.

    With 1 that is a Poisson process; the more, the longer the bursts and the pauses between them.
    """

    def __init__(self, profile: RateProfile, seed: int, cv2: float) -> None:
        """`cv2` is the variance of the gaps over the square of their mean, above 0."""
        super().__init__(profile, seed)
        self._cv2 = cv2

    def _gaps(self, random: np.random.Generator) -> NDArray[np.float64]:
        return random.gamma(1.0 / self._cv2, self._cv2, self._BLOCK)


class TraceSchedule:
    """Departures at given instants."""

    def __init__(self, instants_s: Sequence[float]) -> None:
        self._instants_s = instants_s

    def due_s(self, n: int) -> float:
        """See `Schedule`."""
        return self._instants_s[n] if n < len(self._instants_s) else math.inf


class SharedSchedule:
    """Every `parts`-th departure of a schedule, beginning with number `part`.

    All parts together are the schedule itself, so that several processes send what one would.
    """

    def __init__(self, schedule: Schedule, part: int, parts: int) -> None:
        self._schedule = schedule
        self._part = part
        self._parts = parts

    def due_s(self, n: int) -> float:
        """See `Schedule`."""
        return self._schedule.due_s(n * self._parts + self._part)


@dataclass(frozen=True, slots=True)
class Departure:
    """The next departure: when it is due, and how long from now that is (0 if it is overdue)."""

    due_s: float
    wait_s: float


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
