"""The search for the highest rate that holds an objective: a state machine, told what each run found.

A run near the limit holds or misses by chance, and the machine's speed drifts. So the answer is an
interval: a rate that held in every one of its runs (two at least), and the lowest that missed.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

# The lower end must hold so often, without one miss.
_HOLDS = 2
_FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class Found:
    """What the search knows when it ends.

    Attributes:
        rate: Highest rate below the lowest that missed; it held in all of its runs. None if there is none.
        runs: How often that rate was tried.
        lowest_missed: Lowest rate that missed in any of its runs; None if none did.
        highest_held: Highest rate that held in some run, even if above one that missed.
        complete: Whether the search ended by itself, and not by its limit or an interruption.
    """

    rate: float | None
    runs: int
    lowest_missed: float | None
    highest_held: float | None
    complete: bool

    @property
    def uncertainty(self) -> float | None:
        """Half the distance of the two ends over their mean; None while one is missing."""
        if self.rate is None or self.lowest_missed is None:
            return None
        return (self.lowest_missed - self.rate) / (self.lowest_missed + self.rate)

    def text(self, p99_s: float) -> str:
        """The answer as a sentence or two."""
        goal = f"p99 within {p99_s * 1e3:g} ms"
        if self.rate is None:
            missed = (
                "" if self.lowest_missed is None else f" (missed at {self.lowest_missed:.4g}/s)"
            )
            return f"no rate was found that holds {goal}{missed}"
        text = f"{goal} holds at {self.rate:.4g} requests/s (in {self.runs} of {self.runs} runs)"
        if self.lowest_missed is None:
            text += "; no rate was found that misses it"
        else:
            text += f" and is missed at {self.lowest_missed:.4g}"
            if self.uncertainty is not None:
                middle = (self.rate + self.lowest_missed) / 2
                text += f": the limit is {middle:.4g} ± {self.uncertainty:.1%}"
        if self.lowest_missed and self.highest_held and self.highest_held > self.lowest_missed:
            text += (
                f". Another run held at {self.highest_held:.4g}: the machine's speed varies "
                "by more than that"
            )
        if not self.complete:
            text += ". The search was not finished"
        return text


class Search:
    """Doubles or halves the rate until the limit is between two rates, then closes in on it.

    Args:
        start: Rate of the first run, in requests per second.
        precision: End when the rate that misses is at most this share above the one that holds.
        lowest: Rates below are not tried.
        highest: Rates above are not tried.
        most_runs: The limit of runs.
    """

    def __init__(
        self,
        start: float,
        *,
        precision: float = 0.05,
        lowest: float = 0.1,
        highest: float = 100_000.0,
        most_runs: int = 20,
    ) -> None:
        self._start = min(max(start, lowest), highest)
        self._precision = precision
        self._lowest = lowest
        self._highest = highest
        self._most_runs = most_runs
        self._votes: dict[float, list[bool]] = defaultdict(list)
        self._runs = 0

    def tell(self, rate: float, *, held: bool) -> None:
        """What a run at this rate found."""
        self._votes[rate].append(held)
        self._runs += 1

    def next_rate(self) -> float | None:
        """The rate to try next; None when the search has ended."""
        if self._runs >= self._most_runs:
            return None
        return self._wanted()

    def found(self) -> Found:
        """What is known so far."""
        low = self._low()
        held = [rate for rate, votes in self._votes.items() if any(votes)]
        return Found(
            rate=low,
            runs=len(self._votes[low]) if low is not None else 0,
            lowest_missed=self._high(),
            highest_held=max(held, default=None),
            complete=self._wanted() is None,
        )

    def _high(self) -> float | None:
        """The lowest rate that ever missed."""
        return min((rate for rate, votes in self._votes.items() if not all(votes)), default=None)

    def _low(self) -> float | None:
        """The highest rate below it that was tried: all its runs held."""
        high = self._high()
        below = (
            rate
            for rate, votes in self._votes.items()
            if votes and all(votes) and (high is None or rate < high)
        )
        return max(below, default=None)

    def _wanted(self) -> float | None:
        if not self._votes:
            return self._start
        low, high = self._low(), self._high()
        if low is None:
            assert high is not None  # some run either held or missed
            return high / _FACTOR if high / _FACTOR >= self._lowest else None
        if high is None:
            if low < self._highest:
                return min(low * _FACTOR, self._highest)
        elif high / low > 1 + self._precision:
            return round(math.sqrt(low * high), 3)
        return low if len(self._votes[low]) < _HOLDS else None
