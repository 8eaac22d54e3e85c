"""How the departures of an open loop come: at a steady rate, on a ramp, in steps, from a trace."""

import math
from dataclasses import dataclass
from enum import StrEnum

from rootserve.client.errors import InputError
from rootserve.client.load.pacer import (
    ConstantSchedule,
    PoissonSchedule,
    RampRate,
    RateProfile,
    Schedule,
    SteadyRate,
    StepRate,
    TraceSchedule,
)
from rootserve.client.load.trace import Trace

# One Python process sends a few thousand requests a second at best: more is a slip of the pen.
MAX_RATE = 100_000.0
_MOST_SECONDS = 86_400.0


class Distribution(StrEnum):
    """How the departures of an open loop are spread."""

    POISSON = "poisson"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Ramp:
    """A rate that goes from one value to another over the measured window, in requests/s."""

    first: float
    last: float

    def __post_init__(self) -> None:
        _check_rates(f"ramp {self}", self.first, self.last)

    def __str__(self) -> str:
        return f"{self.first:g}..{self.last:g}"


@dataclass(frozen=True, slots=True)
class Steps:
    """Rates in requests/s, each with how many seconds it lasts."""

    steps: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise InputError("steps: expected at least one RATExSECONDS")
        _check_rates(f"steps {self}", *(rate for rate, _ in self.steps))
        if not all(0 < seconds <= _MOST_SECONDS for _, seconds in self.steps):
            raise InputError(f"steps {self}: expected steps of more than 0 seconds, up to a day")

    @property
    def length_s(self) -> float:
        """How long all of them last."""
        return sum(seconds for _, seconds in self.steps)

    def __str__(self) -> str:
        return ",".join(f"{rate:g}x{seconds:g}" for rate, seconds in self.steps)


def _check_rates(what: str, *rates: float) -> None:
    if not all(math.isfinite(rate) and 0 <= rate <= MAX_RATE for rate in rates) or not any(rates):
        raise InputError(
            f"{what}: expected rates from 0 to {MAX_RATE:,.0f} requests per second, not all 0"
        )


Arrivals = float | Ramp | Steps | Trace


def parse_arrivals(text: str) -> float | Ramp | Steps | None:
    """A ramp `50..500` or steps `50x10,400x5`; None when it is neither.

    Raises:
        InputError: It is meant as one of them and its numbers are wrong.
    """
    first, dots, last = text.partition("..")
    wrong = InputError(
        f"rate {text}: expected R, a ramp FROM..TO, steps RATExSECONDS,RATExSECONDS, "
        "or for several runs R,R or FROM:TO:xFACTOR"
    )
    try:
        if dots:
            return Ramp(float(first), float(last))
        if ":" in text or "x" not in text:
            return None
        pairs = [part.partition("x") for part in text.split(",")]
        return Steps(tuple((float(rate), float(seconds)) for rate, _, seconds in pairs))
    except ValueError:
        raise wrong from None


def schedule_for(
    arrivals: Arrivals, distribution: Distribution, seed: int, warmup_s: float, duration_s: float
) -> Schedule:
    """The schedule of a run whose measured window lasts `duration_s` after `warmup_s`."""
    if isinstance(arrivals, Trace):
        return TraceSchedule([entry.at_s for entry in arrivals.entries])
    profile: RateProfile
    if isinstance(arrivals, Ramp):
        profile = RampRate(arrivals.first, arrivals.last, warmup_s, duration_s)
    elif isinstance(arrivals, Steps):
        profile = StepRate(arrivals.steps, warmup_s)
    else:
        profile = SteadyRate(arrivals)
    if distribution == Distribution.CONSTANT:
        return ConstantSchedule(profile)
    return PoissonSchedule(profile, seed)
