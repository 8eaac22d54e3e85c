"""The search for the highest rate that holds an objective: a state machine, told what each run found.

A run near the limit holds or misses by chance, any run may miss because the machine stumbled, and no
single run may decide. So the limit is a quantity with a probability: each run shifts it (Watson and
Pelli, QUEST, 1983), the next one is made at its median, and the answer is an interval that holds the
limit with 95 %.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FACTOR = 2.0
STRAY_MISS = 0.05
"""How probable it is that a run far below the limit misses all the same, as the machine stumbles."""

# What else may be: a run far above the limit holds; and over how much of the rate (as a share) runs go from
# holding to missing.
_STRAY_HOLD = 0.01
_SPREADS = (0.01, 0.05)
_STEP = 0.002
_TAIL = 0.025
# Less than this is left for a limit within the rates that may be tried: it lies outside.
_NONE_LEFT = 0.05


@dataclass(frozen=True, slots=True)
class Found:
    """What the search knows when it ends.

    Attributes:
        limit: The likeliest highest rate, the median; None while none held, or none missed.
        low: The limit is above this with 97.5 %.
        high: It is below this with 97.5 %.
        rate: The highest rate that was tried, held, and is not above the limit.
        lowest_missed: The lowest rate that was tried, missed, and is not below the limit.
        runs: How many runs say so.
        complete: Whether the search ended by itself, and not by its limit of runs or an interruption.
    """

    limit: float | None
    low: float | None
    high: float | None
    rate: float | None
    lowest_missed: float | None
    runs: int
    complete: bool

    @property
    def uncertainty(self) -> float | None:
        """Half of the 95 % interval over the limit."""
        if self.limit is None or self.low is None or self.high is None:
            return None
        return (self.high - self.low) / 2 / self.limit

    def text(self, goal: str) -> str:
        """The answer as a sentence or two; `goal` is the objective in a few words."""
        runs = f"{self.runs} run{'' if self.runs == 1 else 's'}"
        if self.rate is None:
            missed = (
                "" if self.lowest_missed is None else f" (missed at {self.lowest_missed:.4g}/s)"
            )
            text = f"no rate was found that holds {goal}{missed}"
        elif self.limit is None or self.uncertainty is None:
            text = f"{goal} holds at {self.rate:.4g} requests/s; no rate was found that misses it"
        else:
            text = (
                f"{goal} holds up to {self.limit:.4g} requests/s ± {self.uncertainty:.1%} "
                f"(95 % interval {self.low:.4g} to {self.high:.4g}, from {runs})"
            )
        if not self.complete:
            text += f". The search was not finished after {runs}"
        return text


class Search:
    """Doubles or halves the rate until the limit is between two rates, then closes in on it.

    Args:
        start: Rate of the first run, in requests per second.
        precision: End when half of the 95 % interval is at most this share of the limit.
        lowest: Rates below are not tried.
        highest: Rates above are not tried.
        most_runs: The limit of runs.
        stray_miss: How probable it is that a run far below the limit misses all the same.
    """

    def __init__(
        self,
        start: float,
        *,
        precision: float = 0.05,
        lowest: float = 0.1,
        highest: float = 100_000.0,
        most_runs: int = 30,
        stray_miss: float = STRAY_MISS,
    ) -> None:
        self._start = min(max(start, lowest), highest)
        self._precision = precision
        self._lowest = lowest
        self._highest = highest
        self._most_runs = most_runs
        self._stray_miss = stray_miss
        self._votes: list[tuple[float, bool]] = []
        self._runs = 0
        ends = math.log(lowest / _FACTOR), math.log(highest * _FACTOR)
        self._limits: NDArray[np.float64] = np.arange(*ends, _STEP)
        # Of each spread (rows) and limit (columns): the logarithm of how likely they are. Before any
        # run, within a few times the first rate, with tails that the first runs overrule.
        prior = -2 * np.log1p((self._limits - math.log(self._start)) ** 2)
        self._logs: NDArray[np.float64] = np.tile(prior, (len(_SPREADS), 1))

    def tell(self, rate: float, *, held: bool | None) -> None:
        """What a run at this rate found; None if it could not tell."""
        self._runs += 1
        if held is None:
            return
        self._votes.append((rate, held))
        below = (self._limits - math.log(rate)) / np.array(_SPREADS)[:, None]
        holds = _STRAY_HOLD + (1 - _STRAY_HOLD - self._stray_miss) / (
            1 + np.exp(-np.clip(below, -50, 50))
        )
        self._logs += np.log(holds if held else 1 - holds)

    def next_rate(self) -> float | None:
        """The rate to try next; None when the search has ended."""
        if self._runs >= self._most_runs or self._is_complete():
            return None
        if not self._votes:
            return self._start
        tried = [rate for rate, _ in self._votes]
        low, high = (
            max(self._lowest, min(tried) / _FACTOR),
            min(self._highest, max(tried) * _FACTOR),
        )
        return round(min(max(self._quantile(0.5), low), high), 3)

    def found(self) -> Found:
        """What is known so far."""
        held = [rate for rate, held in self._votes if held]
        missed = [rate for rate, held in self._votes if not held]
        limit = self._quantile(0.5) if held and missed else None
        if self._votes and self._outside():
            limit = None
        return Found(
            limit=limit,
            low=None if limit is None else self._quantile(_TAIL),
            high=None if limit is None else self._quantile(1 - _TAIL),
            rate=max((r for r in held if limit is None or r <= limit), default=None),
            lowest_missed=min((r for r in missed if limit is None or r >= limit), default=None),
            runs=self._runs,
            complete=self._is_complete(),
        )

    def _is_complete(self) -> bool:
        if not self._votes:
            return False
        low, high = self._quantile(_TAIL), self._quantile(1 - _TAIL)
        return self._outside() or (high - low) / 2 <= self._precision * self._quantile(0.5)

    def _outside(self) -> bool:
        """Whether the limit is above, or below, all rates that may be tried."""
        inside = (math.log(self._lowest), math.log(self._highest))
        chosen = (self._limits >= inside[0]) & (self._limits <= inside[1])
        return float(self._shares()[chosen].sum()) < _NONE_LEFT

    def _shares(self) -> NDArray[np.float64]:
        """The probability of each limit."""
        shares = np.exp(self._logs - self._logs.max()).sum(axis=0)
        normed: NDArray[np.float64] = shares / shares.sum()
        return normed

    def _quantile(self, share: float) -> float:
        place = int(np.searchsorted(np.cumsum(self._shares()), share))
        return math.exp(self._limits[min(place, len(self._limits) - 1)])
