"""The workloads on which policies are compared: what comes, in what service, and what goes wrong.

Rates are told as loads: shares of what the workers compute of the fastest variant in full batches. All but
the workloads about it are requests of four images with deadlines of 25, 50 and 100 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rootserve.client.load.mix import Mix
from rootserve.client.load.pacer import RampRate, RateProfile, SteadyRate, StepRate
from rootserve.client.simulation.arrivals import (
    Arrival,
    Asked,
    instants,
    maf_shaped,
    merged,
    schedule_of,
)
from rootserve.client.simulation.service import Service
from rootserve.client.simulation.world import Fault

DEADLINES = Mix((0.025, 0.05, 0.1), (1.0, 2.0, 1.0))
ROWS = 4
ASKED = Asked(deadline_s=DEADLINES, rows=ROWS)


@dataclass(frozen=True, slots=True)
class Workload:
    """What comes within `seconds`: `arrivals` is told the capacity in rows per second, and a seed.

    `believed` and `faults` as of the simulation; `workers` are those of the service.
    """

    name: str
    arrivals: Callable[[float, float, int], Sequence[Arrival]]
    workers: int = 1
    believed: float = 1.0
    faults: Callable[[float, Service], Sequence[Fault]] = lambda _seconds, _service: ()

    def service(self, base: Service) -> Service:
        """The service on which it comes."""
        kind = next(iter(base.workers))
        return replace(base, workers={kind: self.workers}, believed=self.believed)


def steady(load: float, cv2: float = 1.0, asked: Asked = ASKED) -> Callable[..., Sequence[Arrival]]:
    """The same rate all the time."""

    def arrivals(capacity: float, seconds: float, seed: int) -> Sequence[Arrival]:
        profile = SteadyRate(load * capacity / _mean_rows(asked))
        return asked.at(instants(schedule_of(profile, seed, cv2), seconds), seed)

    return arrivals


def _mean_rows(asked: Asked) -> float:
    if not isinstance(asked.rows, Mix):
        return asked.rows
    pairs = zip(asked.rows.values, asked.rows.weights, strict=True)
    return sum(rows * weight for rows, weight in pairs) / sum(asked.rows.weights)


def _changing(
    profile: Callable[[float, float, int], RateProfile], asked: Asked = ASKED
) -> Callable[..., Sequence[Arrival]]:
    def arrivals(capacity: float, seconds: float, seed: int) -> Sequence[Arrival]:
        schedule = schedule_of(profile(capacity, seconds, seed), seed, 1.0)
        return asked.at(instants(schedule, seconds), seed)

    return arrivals


def _ramp(capacity: float, seconds: float, _: int) -> RateProfile:
    return RampRate(0.3 * capacity / ROWS, 1.3 * capacity / ROWS, 0.0, seconds)


def _steps(capacity: float, seconds: float, _: int) -> RateProfile:
    return StepRate([(load * capacity / ROWS, seconds / 3) for load in (0.3, 1.2, 0.3)], 0.0)


def _maf(load: float) -> Callable[..., Sequence[Arrival]]:
    return _changing(
        lambda capacity, seconds, seed: maf_shaped(load * capacity / ROWS, seconds, seed, 0.05)
    )


def _base_and_gamma(capacity: float, seconds: float, seed: int) -> Sequence[Arrival]:
    base = schedule_of(SteadyRate(0.4 * capacity / ROWS), seed, 0.0)
    bursts = schedule_of(SteadyRate(0.4 * capacity / ROWS), seed, 8.0)
    return merged(
        ASKED.at(instants(base, seconds), seed), ASKED.at(instants(bursts, seconds), seed + 1000)
    )


def _greedy_caller(capacity: float, seconds: float, seed: int) -> Sequence[Arrival]:
    modest = replace(ASKED, caller="modest")
    greedy = replace(ASKED, caller="greedy")
    third = [(load * capacity / ROWS, seconds / 3) for load in (0.2, 1.6, 0.2)]
    return merged(
        modest.at(
            instants(schedule_of(SteadyRate(0.4 * capacity / ROWS), seed, 1.0), seconds), seed
        ),
        greedy.at(
            instants(schedule_of(StepRate(third, 0.0), seed + 1000, 1.0), seconds), seed + 1000
        ),
    )


def _pins(capacity: float, seconds: float, seed: int) -> Sequence[Arrival]:
    """One request in five is for one of the two most accurate variants, which are slow."""
    plain = steady(0.7)(capacity, seconds, seed)
    pinned = frozenset({"nin-orig", "nin-root-2"})
    return [
        each._replace(allowed=pinned) if number % 5 == 0 else each
        for number, each in enumerate(plain)
    ]


def _killed(seconds: float, service: Service) -> Sequence[Fault]:
    return [Fault(service.names()[0][0], seconds / 3, seconds / 4)]


def _slow(seconds: float, service: Service) -> Sequence[Fault]:
    return [Fault(service.names()[0][0], seconds / 3, seconds / 3, 2.0)]


def workloads() -> list[Workload]:
    """All of them."""
    loads = (0.3, 0.6, 0.8, 0.9, 1.0, 1.2, 1.5)
    spread = Asked(rows=ROWS, deadline_s=Mix((0.015, 0.04, 0.2, 1.0), (1.0, 2.0, 1.0, 1.0)))
    floors = replace(ASKED, floor=Mix((0.0, 0.9, 0.902, 0.903), (4.0, 2.0, 2.0, 1.0)))
    patient = Asked(rows=ROWS, deadline_s=Mix((0.05, float("inf")), (2.0, 1.0)))
    rows = Asked(deadline_s=DEADLINES, rows=Mix((1, 4, 16), (6.0, 2.0, 1.0)))
    return [
        *(Workload(f"Poisson, load {load:g}", steady(load)) for load in loads),
        *(Workload(f"gamma, CV² {cv2:g}, load 0.7", steady(0.7, cv2)) for cv2 in (2.0, 4.0, 8.0)),
        Workload("constant 0.4 + gamma 0.4, CV² 8", _base_and_gamma),
        Workload("ramp, 0.3 to 1.3", _changing(_ramp)),
        Workload("step, 0.3, 1.2, 0.3", _changing(_steps)),
        Workload("MAF-shaped, load 0.7", _maf(0.7)),
        Workload("MAF-shaped, load 1", _maf(1.0)),
        Workload("deadlines 15 ms to 1 s, load 0.9", steady(0.9, 1.0, spread)),
        Workload("a third without deadline, load 0.9", steady(0.9, 1.0, patient)),
        Workload("floors to 0.903, load 0.7", steady(0.7, 1.0, floors)),
        Workload("a fifth pinned, load 0.7", _pins),
        Workload("1, 4 and 16 images, load 0.9", steady(0.9, 1.0, rows)),
        Workload("single images, load 0.9", steady(0.9, 1.0, replace(ASKED, rows=1))),
        Workload("a greedy caller, 0.6, 2, 0.6", _greedy_caller),
        Workload("table x0.7, load 0.8", steady(0.8), believed=0.7),
        Workload("table x1.5, load 0.8", steady(0.8), believed=1.5),
        Workload("two workers, one killed, load 0.6", steady(0.6), workers=2, faults=_killed),
        Workload("two workers, one slow, load 0.6", steady(0.6), workers=2, faults=_slow),
    ]
