"""What comes: requests with their deadlines, floors and callers, drawn from a seed or read from a trace."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rootserve.client.errors import InputError
from rootserve.client.load.mix import Mix, mix_of
from rootserve.client.load.pacer import (
    ConstantSchedule,
    GammaSchedule,
    PoissonSchedule,
    RateProfile,
    Schedule,
    StepRate,
)
from rootserve.client.load.trace import Trace

_MOST = 10_000_000


class Arrival(NamedTuple):
    """One request: when it comes, in seconds since the start, and what it asks for.

    Attributes:
        at_s: When it comes.
        model: The name asked for; "" asks for the family.
        rows: Images in it.
        deadline_s: Seconds from its coming until it is late.
        floor: The least accuracy that will do, 0..1.
        allowed: Variants to choose from; empty: all.
        priority: 1 is the highest.
        caller: Whose share it is.
    """

    at_s: float
    model: str = ""
    rows: int = 1
    deadline_s: float = math.inf
    floor: float = 0.0
    allowed: frozenset[str] = frozenset()
    priority: int = 1
    caller: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the requests of a demand ask for: one value, or several with their weights."""

    deadline_s: float | Mix[float] = math.inf
    floor: float | Mix[float] = 0.0
    model: str | Mix[str] = ""
    rows: int | Mix[int] = 1
    priority: int | Mix[int] = 1
    caller: str | Mix[str] = ""

    def __post_init__(self) -> None:
        for deadline_s in mix_of(self.deadline_s).values:
            if not deadline_s > 0:
                raise InputError(f"a deadline of {deadline_s:g} s came; expected more than 0")
        for floor in mix_of(self.floor).values:
            if not 0 <= floor <= 1:
                raise InputError(f"an accuracy floor of {floor:g} came; expected 0 to 1")
        for rows in mix_of(self.rows).values:
            if rows < 1:
                raise InputError(f"requests of {rows} rows came; expected 1 or more")

    def at(self, instants_s: Sequence[float], seed: int) -> tuple[Arrival, ...]:
        """Requests that come at these instants; the same seed asks alike."""
        random = np.random.default_rng((seed, 1))
        count = len(instants_s)
        drawn = zip(
            instants_s,
            mix_of(self.model).draw(count, random),
            mix_of(self.rows).draw(count, random),
            mix_of(self.deadline_s).draw(count, random),
            mix_of(self.floor).draw(count, random),
            mix_of(self.priority).draw(count, random),
            mix_of(self.caller).draw(count, random),
            strict=True,
        )
        return tuple(
            Arrival(at_s, model, rows, deadline_s, floor, frozenset(), priority, caller)
            for at_s, model, rows, deadline_s, floor, priority, caller in drawn
        )


def instants(schedule: Schedule, duration_s: float) -> list[float]:
    """All departures of a schedule before `duration_s`.

    Raises:
        InputError: There are too many to be simulated.
    """
    found: list[float] = []
    while (due_s := schedule.due_s(len(found))) < duration_s:
        found.append(due_s)
        if len(found) > _MOST:
            raise InputError(f"more than {_MOST:,} requests would come; expected fewer")
    return found


def schedule_of(profile: RateProfile, seed: int, cv2: float) -> Schedule:
    """Departures with gaps of that squared coefficient of variation; 0 has them at equal distances.

    Raises:
        InputError: It is not a number of 0 or more.
    """
    if not (math.isfinite(cv2) and cv2 >= 0):
        raise InputError(f"a squared coefficient of variation of {cv2:g} came; expected 0 or more")
    if cv2 == 0:
        return ConstantSchedule(profile)
    return PoissonSchedule(profile, seed) if cv2 == 1 else GammaSchedule(profile, seed, cv2)


def merged(*parts: Sequence[Arrival]) -> tuple[Arrival, ...]:
    """Several streams of requests as one."""
    return tuple(sorted((each for part in parts for each in part), key=lambda each: each.at_s))


def maf_shaped(rate: float, duration_s: float, seed: int, step_s: float = 0.25) -> RateProfile:
    """Rates as of a service's many functions: drifting, heavy-tailed, with spikes; `rate` on average.

    The shape is that of published traces of function invocations, minutes compressed to `step_s`; none of
    their data is in it.
    """
    random = np.random.default_rng((seed, 2))
    count = max(2, math.ceil(duration_s / step_s))
    level, drawn = 0.0, []
    for _ in range(count):
        level = 0.9 * level + math.sqrt(1 - 0.9**2) * random.normal()
        spike = 1.0 + (random.pareto(2.5) if random.random() < 0.06 else 0.0)
        drawn.append(math.exp(0.35 * level) * spike)
    mean = sum(drawn) / count
    return StepRate([(rate * each / mean, step_s) for each in drawn], 0.0)


def of_trace(
    trace: Trace, asked: Asked, seed: int, known: Callable[[str], bool]
) -> tuple[Arrival, ...]:
    """The requests of a trace file; what it leaves open is drawn from `asked`.

    Raises:
        InputError: It names a model that is not `known`.
    """
    drawn = asked.at([entry.at_s for entry in trace.entries], seed)
    found = []
    for entry, arrival in zip(trace.entries, drawn, strict=True):
        if entry.model is not None and not known(entry.model):
            raise InputError(f"{trace.path}: asks for {entry.model}, of which no latency is known")
        told: dict[str, Any] = {
            "model": entry.model,
            "rows": entry.rows,
            "priority": entry.priority,
            "deadline_s": entry.deadline_s,
            "floor": entry.accuracy_floor,
            "allowed": frozenset(entry.variants) or None,
        }
        found.append(
            arrival._replace(**{key: each for key, each in told.items() if each is not None})
        )
    return tuple(found)
