"""A simulated service: the scheduler itself, and workers whose batches take drawn times.

What drives the scheduler here does so as the dispatcher of the service does: it polls when an offer says so,
when a batch is done, and when the scheduler asked to be woken. Nothing waits: the clock is a number.
"""

import heapq
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from rootserve.client.simulation.arrivals import Arrival
from rootserve.client.simulation.latencies import Latencies
from rootserve.server.core.decisions import Batch
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Scheduler

HAND_OVER_S = 0.0003
"""From the end of a batch, or from a decision, to the begin of the next one on an idle worker."""

_START_S = 1.0
"""Until a worker that was killed because it hung is replaced."""


class Outcome(StrEnum):
    """What became of a request."""

    MET = "met"
    LATE = "late"
    EXPIRED = "expired"
    REFUSED = "refused"
    LOST = "lost"


class Fate(NamedTuple):
    """What became of a request, and when; `batch` is the place of the one that it was computed in.

    `why` is the reason of a refusal, `retry_s` when trying again would make sense.
    """

    outcome: Outcome
    ended_s: float
    batch: int | None = None
    why: str = ""


class Done(NamedTuple):
    """A batch that was computed. `predicted_s` is what the scheduler expected at most, if it told."""

    formed_s: float
    began_s: float
    ended_s: float
    worker: str
    variant: str
    rows: int
    predicted_s: float | None


class Fault(NamedTuple):
    """Something that goes wrong with a worker at `at_s`.

    With a `factor`, its batches that begin within `for_s` take so many times as long; without, it is killed,
    and is there again after `for_s`.
    """

    worker: str
    at_s: float
    for_s: float
    factor: float | None = None


@dataclass(slots=True)
class Run:
    """All that happened: one fate for each arrival, and the batches in the order in which they ended.

    `decisions_s` are the seconds that each offer and each poll took of a processor, if they were timed.
    """

    arrivals: Sequence[Arrival]
    fates: list[Fate]
    batches: list[Done] = field(default_factory=list)
    decisions_s: list[float] = field(default_factory=list)
    ended_s: float = 0.0


@dataclass(slots=True)
class _Worker:
    name: str
    kind: str
    held: list[Batch] = field(default_factory=list)
    began_s: float = 0.0
    life: int = 0


class _Event(NamedTuple):
    at_s: float
    order: int
    act: Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a scheduler runs in.

    Attributes:
        workers: Names and kinds of its workers.
        latencies: How long batches really take.
        models: What every worker computes.
        family: The virtual model that requests ask for whose model is "".
        seed: Of the times that batches take.
        hand_over_s: What passes before a batch begins on an idle worker.
        timed: Whether the scheduler's decisions are timed.
    """

    workers: Sequence[tuple[str, str]]
    latencies: Latencies
    models: Sequence[str]
    family: str = ""
    seed: int = 0
    hand_over_s: float = HAND_OVER_S
    timed: bool = False


class World:
    """Runs a scheduler whose models were measured, and which knows of no worker yet."""

    def __init__(self, scheduler: Scheduler, setting: Setting) -> None:
        self._scheduler = scheduler
        self._setting = setting
        self._random = np.random.default_rng((setting.seed, 3))
        self._drawn: list[float] = []
        self._workers = {name: _Worker(name, kind) for name, kind in setting.workers}
        self._slow: list[Fault] = []
        self._events: list[_Event] = []
        self._order = itertools.count()
        self._wake_s = math.inf
        self._fates: dict[int, Fate] = {}
        self._run = Run((), [])

    def run(self, arrivals: Sequence[Arrival], faults: Sequence[Fault] = ()) -> Run:
        """Offer all arrivals when they come, and go on until every one has its fate.

        Raises:
            RuntimeError: The scheduler left some without.
            ValueError: A fault is of a worker that there is not.
        """
        self._run = Run(arrivals, [])
        for worker in self._workers.values():
            self._scheduler.worker_ready(worker.name, self._setting.models, worker.kind)
        for fault in faults:
            self._plan(fault)
        coming = enumerate(arrivals)
        number, arrival = next(coming, (0, None))
        while True:
            event_s = self._events[0].at_s if self._events else math.inf
            next_s = min(event_s, self._wake_s)
            if arrival is not None and arrival.at_s <= next_s:
                self._offer(number, arrival)
                number, arrival = next(coming, (0, None))
            elif event_s <= self._wake_s and event_s < math.inf:
                event = heapq.heappop(self._events)
                event.act(event.at_s)
            elif self._wake_s < math.inf and len(self._fates) < len(arrivals):
                now, self._wake_s = self._wake_s, math.inf
                self._poll(now)
            else:
                break
        if len(self._fates) != len(arrivals):
            missing = len(arrivals) - len(self._fates)
            raise RuntimeError(f"{missing} of {len(arrivals)} requests were left without an answer")
        self._run.fates = [self._fates[n] for n in range(len(arrivals))]
        return self._run

    def _plan(self, fault: Fault) -> None:
        if fault.worker not in self._workers:
            raise ValueError(f"no worker {fault.worker}; there are {', '.join(self._workers)}")
        if fault.factor is not None:
            self._slow.append(fault)
        else:
            self._at(fault.at_s, lambda now: self._kill(fault, now))

    def _at(self, at_s: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._events, _Event(at_s, next(self._order), act))

    def _offer(self, number: int, arrival: Arrival) -> None:
        now = arrival.at_s
        request = Request(
            number,
            arrival.model or self._setting.family,
            arrival.rows,
            now,
            now + arrival.deadline_s,
            arrival.priority,
            floor=arrival.floor,
            allowed=arrival.allowed,
            caller=arrival.caller,
        )
        began_s = time.thread_time() if self._setting.timed else 0.0
        offered = self._scheduler.offer(request, now)
        if self._setting.timed:
            self._run.decisions_s.append(time.thread_time() - began_s)
        if offered.declined is not None:
            self._end(number, Fate(Outcome.REFUSED, now, why=offered.declined.name))
        elif offered.poll:
            self._poll(now)

    def _poll(self, now: float) -> None:
        began_s = time.thread_time() if self._setting.timed else 0.0
        decisions = self._scheduler.poll(now)
        if self._setting.timed:
            self._run.decisions_s.append(time.thread_time() - began_s)
        for request in decisions.expired:
            self._end(request.id, Fate(Outcome.EXPIRED, now))
        for batch in decisions.dispatches:
            worker = self._workers[batch.worker]
            worker.held.append(batch)
            if len(worker.held) == 1:
                self._begin(worker, now + self._setting.hand_over_s)
        # Asked too early it decides nothing, and says again when.
        self._wake_s = decisions.wake_s if decisions.wake_s > now else now + 1e-6
        for name in decisions.hung:
            self._kill(Fault(name, now, _START_S), now)

    def _begin(self, worker: _Worker, now: float) -> None:
        """The worker begins its first batch: what is late by now it does not compute."""
        batch, life = worker.held[0], worker.life
        worker.began_s = now
        late = {request.id for request in batch.requests if request.deadline_s <= now}
        rows = sum(request.rows for request in batch.requests if request.id not in late)
        took_s = self._took_s(worker, batch.model, rows, now) if rows else 0.0

        def end(at_s: float) -> None:
            if worker.life == life:
                self._done(worker, batch, late, at_s)

        self._at(now + took_s, end)

    def _took_s(self, worker: _Worker, variant: str, rows: int, now: float) -> float:
        if not self._drawn:
            self._drawn = self._random.standard_normal(4096).tolist()
        took_s = self._setting.latencies.drawn_s(worker.kind, variant, rows, self._drawn.pop())
        for fault in self._slow:
            if fault.worker == worker.name and 0 <= now - fault.at_s < fault.for_s:
                took_s *= fault.factor or 1.0
        return took_s

    def _done(self, worker: _Worker, batch: Batch, late: set[int], now: float) -> None:
        worker.held.pop(0)
        took_s = now - worker.began_s
        place = len(self._run.batches)
        self._run.batches.append(
            Done(
                batch.formed_s,
                worker.began_s,
                now,
                worker.name,
                batch.model,
                batch.rows,
                batch.predicted_s,
            )
        )
        for request in batch.requests:
            if request.id in late:
                self._end(request.id, Fate(Outcome.EXPIRED, now))
            else:
                outcome = Outcome.MET if now <= request.deadline_s else Outcome.LATE
                self._end(request.id, Fate(outcome, now, place))
        self._scheduler.batch_done(worker.name, batch.id, now, None if late else took_s)
        if worker.held:
            self._begin(worker, now)
        if not self._scheduler.is_empty:
            self._poll(now)

    def _kill(self, fault: Fault, now: float) -> None:
        worker = self._workers[fault.worker]
        worker.held.clear()
        worker.life += 1
        for request in self._scheduler.worker_lost(worker.name):
            self._end(request.id, Fate(Outcome.LOST, now))
        self._at(now + fault.for_s, lambda at_s: self._revive(worker, at_s))
        self._poll(now)

    def _revive(self, worker: _Worker, now: float) -> None:
        self._scheduler.worker_ready(worker.name, self._setting.models, worker.kind)
        self._poll(now)

    def _end(self, number: int, fate: Fate) -> None:
        if number in self._fates:
            raise RuntimeError(f"request {number} was answered twice")
        self._fates[number] = fate
        self._run.ended_s = max(self._run.ended_s, fate.ended_s)
