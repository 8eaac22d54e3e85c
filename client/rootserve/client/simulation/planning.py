"""How many workers of which kind hold a rate: simulated, with more and more of them until they do."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rootserve.client.errors import InputError
from rootserve.client.load.pacer import SteadyRate
from rootserve.client.simulation.arrivals import Asked, instants, schedule_of
from rootserve.client.simulation.service import Service
from rootserve.client.simulation.summary import Summary

SHARE = 0.99
"""Of what is offered so much must be answered in time: that is what a 99th percentile says."""

_MOST_WORKERS = 256
_REQUESTS = 2000
"""A run has so many; their gaps are random, so that each figure is of `_SEEDS` of them."""
_SEEDS = 2
_SEARCH = 5
"""Halvings in the search for the highest rate."""
_MOST_MARGIN = 4.0
_MOST_TIMES = 8
"""More workers than so many times those that the rate alone takes do not help: a batch is not in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is to be held: requests per second, each answered in time, and with what accuracy on average.

    `floor` is the least accuracy of each single answer, `rows` the images of a request, `cv2` how they come:
    the squared coefficient of variation of their gaps, 1 for independent callers.
    """

    rate: float
    p99_s: float
    accuracy: float = 0.0
    floor: float = 0.0
    rows: int = 1
    cv2: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("rate", self.rate), ("p99", self.p99_s)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} {value:g}: expected more than 0")
        for name, value in (("accuracy", self.accuracy), ("accuracy-floor", self.floor)):
            if not 0 <= value <= 1:
                raise InputError(f"{name} {value:g}: expected 0 to 1")
        if self.rows < 1:
            raise InputError(f"rows {self.rows}: expected 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """So many workers of a kind: whether they hold what is needed, and what happens then.

    `margin` is by how much the rate may rise until they do not, None if they do not even hold it: the highest
    rate that held over the one that is needed, less 1. `summary` is of the rate that is needed.
    """

    kind: str
    workers: int
    holds: bool
    margin: float | None
    summary: Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """For each kind of worker the fewest that hold it, and before it one fewer; nothing where none do."""

    need: Need
    options: Sequence[Option]
    recommendation: str


def plan(
    service: Service,
    need: Need,
    workers: Mapping[str, tuple[int, int]],
    seed: int = 0,
    tell: Callable[[str], object] = str,
) -> Plan:
    """The plan for a family's variants and latencies; of the service's own workers nothing is taken.

    Args:
        service: What is simulated.
        need: What is to be held.
        workers: The fewest and the most workers of each kind that come into question; empty: all kinds.
        seed: Of arrivals and times.
        tell: Told what is simulated now.

    Raises:
        InputError: No variant is as accurate, or a kind is not known.
    """
    _check(service, need, workers)
    kinds = workers or dict.fromkeys(service.latencies.kinds, (1, _MOST_WORKERS))
    options: list[Option] = []
    hopeless: list[str] = []
    for kind, (fewest, most) in kinds.items():
        needed = _needed(service, need, kind)
        if isinstance(needed, str):
            hopeless.append(needed)
        elif needed > most and not workers:
            hopeless.append(
                f"{kind or 'its device'} would take {needed:,} workers or more, and at most {most} are tried"
            )
        else:
            first = max(fewest, min(most, needed))
            numbers = range(first, min(most, _MOST_TIMES * first) + 1)
            options += _options(service, need, kind, numbers, seed, tell)
    return Plan(need=need, options=options, recommendation=_sentence(need, options, hopeless))


def _check(service: Service, need: Need, workers: Mapping[str, tuple[int, int]]) -> None:
    best = max(service.members, key=lambda member: member.accuracy)
    for name, value in (("accuracy", need.accuracy), ("accuracy-floor", need.floor)):
        if value > best.accuracy:
            highest = f"{best.accuracy:g}, the highest there is ({best.variant})"
            raise InputError(f"{name} {value:g}: expected at most {highest}")
    if need.rows > service.limits.max_batch_rows:
        most = service.limits.max_batch_rows
        raise InputError(f"rows {need.rows}: expected at most {most}, as many as a batch may have")
    for kind, (fewest, most) in workers.items():
        if kind not in service.latencies.kinds:
            known = ", ".join(service.latencies.kinds)
            raise InputError(f"workers {kind}: nothing is known of them; expected {known}")
        if not 1 <= fewest <= most <= _MOST_WORKERS:
            text = f"workers {kind}={fewest}..{most}: expected 1 to {_MOST_WORKERS}, fewest first"
            raise InputError(text)


def _needed(service: Service, need: Need, kind: str) -> int | str:
    """How many workers the rate alone takes: fewer cannot hold it, whatever the policy. Or why none can."""
    able = [member.variant for member in service.members if member.accuracy >= need.floor]
    one = replace(service, workers={kind: 1})
    timed = service.latencies.variants(kind)
    able = [variant for variant in able if variant in timed]
    where = kind or "its device"
    if not able:
        return f"{where} has no time of a variant that is as accurate"
    soonest_s = min(one.latencies.of(kind, each, need.rows)[0] for each in able)
    if soonest_s > need.p99_s:
        return f"{where} takes {soonest_s * 1e3:.3g} ms for the fastest batch there is"
    fastest = max(one.capacity(variant) for variant in able)
    return math.ceil(SHARE * need.rate * need.rows / fastest)


def _options(
    service: Service,
    need: Need,
    kind: str,
    numbers: range,
    seed: int,
    tell: Callable[[str], object],
) -> Iterator[Option]:
    """The last number that does not hold it, if any, and the first that does."""
    short: Option | None = None
    for number in numbers:
        tell(f"simulating {number} worker{'s' if number > 1 else ''} on {kind or 'its device'}")
        tried = replace(service, workers={kind: number})
        summary = _simulated(tried, need, need.rate, seed)
        if _holds(summary, need):
            tell(f"simulating {number} on {kind or 'its device'}: how much higher the rate may be")
            if short is not None:
                yield short
            margin = _margin(tried, need, seed)
            yield Option(kind=kind, workers=number, holds=True, margin=margin, summary=summary)
            return
        short = Option(kind=kind, workers=number, holds=False, margin=None, summary=summary)
    if short is not None:
        yield short


def _simulated(service: Service, need: Need, rate: float, seed: int) -> Summary:
    """The figures of the run in which least was met."""
    asked = Asked(deadline_s=need.p99_s, floor=need.floor, rows=need.rows)
    found = []
    for number in range(_SEEDS):
        schedule = schedule_of(SteadyRate(rate), seed + number, need.cv2)
        arrivals = asked.at(instants(schedule, _REQUESTS / rate), seed + number)
        found.append(service.summary(service.run(arrivals, seed=seed + number)))
    return min(found, key=lambda summary: summary.attainment)


def _holds(summary: Summary, need: Need) -> bool:
    return summary.attainment >= SHARE and (summary.mean_accuracy or 0.0) >= need.accuracy


def _margin(service: Service, need: Need, seed: int) -> float:
    low, high = 1.0, _MOST_MARGIN
    for _ in range(_SEARCH):
        middle = math.sqrt(low * high)
        if _holds(_simulated(service, need, need.rate * middle, seed), need):
            low = middle
        else:
            high = middle
    return low - 1.0


def _sentence(need: Need, options: Sequence[Option], hopeless: Sequence[str]) -> str:
    wanted = f"{need.rate:g} requests/s with p99 within {need.p99_s * 1e3:g} ms"
    if need.accuracy:
        wanted += f" and an accuracy of {need.accuracy:g}"
    held = [option for option in options if option.holds]
    if not held:
        why = f": {'; '.join(hopeless)}" if hopeless else ""
        return f"no number of workers that was tried holds {wanted}{why}"
    parts = []
    for option in held:
        workers = f"{option.workers} worker{'s' if option.workers > 1 else ''}"
        accuracy = option.summary.mean_accuracy or 0.0
        margin = f"a margin of {option.margin or 0.0:.0%}"
        parts.append(
            f"{workers} on {option.kind or 'its device'} ({accuracy:.4f} on average, {margin})"
        )
    return f"{wanted}: {' or '.join(parts)}"
