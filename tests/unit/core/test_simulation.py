"""A seeded simulation: the scheduler with simulated workers, minutes of traffic in a second.

Arrivals are Poisson; batches take a fixed and a per-row time with some noise; workers die and come back.
The service runs the same scheduler, only that its clock and its workers are real.
"""

import heapq
import itertools
import math
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Batch, Decisions, Limits, Scheduler

FIXED_S = 0.002
PER_ROW_S = 0.001


@dataclass
class Traffic:
    """What arrives; ``rate`` in requests per second, ``patience_s`` until the deadline."""

    rate: float
    models: tuple[str, ...] = ("a",)
    rows: tuple[int, ...] = (1, 1, 1, 4)
    patience_s: float = math.inf
    priorities: tuple[int, ...] = (1,)


@dataclass
class Result:
    """What became of the requests, and the seconds it took those that were answered."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    rows: int = 0

    def p99(self, model: str = "a", priority: int = 1) -> float:
        times = sorted(self.seconds[model, priority])
        return times[math.ceil(0.99 * len(times)) - 1]


class Simulation:
    """Runs a scheduler through ``seconds`` of simulated time and until all is answered."""

    def __init__(
        self, limits: Limits, traffic: Traffic, seed: int, workers: int = 2, deaths: float = 0.0
    ) -> None:
        self.rng = random.Random(seed)
        self.scheduler = Scheduler(limits)
        self.traffic = traffic
        self.deaths = deaths
        self.result = Result()
        self.requests: dict[int, Request] = {}
        self.events: list[tuple[float, int, str, object]] = []
        self.order = itertools.count()
        self.held: dict[str, list[Batch]] = {}
        for index in range(workers):
            self.start(f"w{index}")

    def start(self, worker: str) -> None:
        self.held[worker] = []
        self.scheduler.worker_ready(worker, self.traffic.models)

    def at(self, when: float, kind: str, what: object = None) -> None:
        heapq.heappush(self.events, (when, next(self.order), kind, what))

    def run(self, seconds: float) -> Result:
        now = 0.0
        ids = itertools.count()
        when = 0.0
        while (when := when + self.rng.expovariate(self.traffic.rate)) < seconds:
            self.at(when, "arrival", next(ids))
        if self.deaths:
            when = 0.0
            while (when := when + self.rng.expovariate(self.deaths)) < seconds:
                self.at(when, "death")
        wake = math.inf
        while self.events or wake < math.inf:
            if self.events and self.events[0][0] <= wake:
                now, _, kind, what = heapq.heappop(self.events)
                getattr(self, f"on_{kind}")(now, what)
            else:
                now = wake
            wake = self.carry_out(now, self.scheduler.poll(now))
            assert wake > now
        assert self.scheduler.is_empty
        assert not self.requests
        return self.result

    def carry_out(self, now: float, decisions: Decisions) -> float:
        for request in decisions.expired:
            self.end(request, "expired")
        for batch in decisions.dispatches:
            held = self.held[batch.worker]
            held.append(batch)
            if len(held) == 1:
                self.begin(now, batch)
        return decisions.wake_s

    def begin(self, now: float, batch: Batch) -> None:
        took = (FIXED_S + PER_ROW_S * batch.rows) * self.rng.uniform(0.9, 1.3)
        self.at(now + took, "done", (batch, took))

    def end(self, request: Request, outcome: str) -> None:
        del self.requests[request.id]  # KeyError: answered twice
        self.result.outcomes[outcome] += 1

    def on_arrival(self, now: float, request_id: object) -> None:
        assert isinstance(request_id, int)
        traffic = self.traffic
        request = Request(
            request_id,
            self.rng.choice(traffic.models),
            self.rng.choice(traffic.rows),
            now,
            now + traffic.patience_s,
            self.rng.choice(traffic.priorities),
        )
        if self.scheduler.offer(request, now).declined is None:
            self.requests[request_id] = request
        else:
            self.result.outcomes["refused"] += 1

    def on_done(self, now: float, what: object) -> None:
        batch, took = what  # type: ignore[misc]
        held = self.held.get(batch.worker, [])
        if not held or held[0] is not batch:
            return  # its worker died meanwhile
        held.pop(0)
        self.scheduler.batch_done(batch.worker, batch.id, now, took)
        for request in batch.requests:
            self.end(request, "answered")
            times = self.result.seconds.setdefault((request.model, request.priority), [])
            times.append(now - request.arrived_s)
            self.result.rows += request.rows
        if held:
            self.begin(now, held[0])

    def on_death(self, now: float, _: object) -> None:
        if not self.held:
            return
        worker = self.rng.choice(sorted(self.held))
        del self.held[worker]
        for request in self.scheduler.worker_lost(worker):
            self.end(request, "lost")
        self.at(now + 0.5, "birth", worker)

    def on_birth(self, now: float, worker: object) -> None:
        assert isinstance(worker, str)
        self.start(worker)


# Two workers with batches of 16 do 2 * 16 / (0.002 + 0.016) rows/s, less the noise: some 1,600.
LIMITS = Limits(max_batch_rows=16, max_queue_rows=200)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_delay_s", [0.0, 0.005])
def test_everything_is_answered_below_capacity(seed: int, max_delay_s: float) -> None:
    limits = Limits(max_batch_rows=16, max_queue_rows=200, max_delay_s=max_delay_s)
    result = Simulation(limits, Traffic(rate=500), seed).run(10)
    assert set(result.outcomes) == {"answered"}
    assert result.p99() < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_deaths_cost_no_request_while_other_workers_live(seed: int) -> None:
    traffic = Traffic(rate=300, models=("a", "b"))
    result = Simulation(LIMITS, traffic, seed, workers=3, deaths=0.5).run(20)
    assert result.outcomes["answered"] > 5000
    # A request is given up only when two workers died of the batch it was in.
    assert result.outcomes["lost"] <= 2
    assert set(result.outcomes) <= {"answered", "lost"}


@pytest.mark.parametrize("seed", range(3))
def test_three_times_the_capacity_is_refused_and_the_rest_answered_in_bounded_time(
    seed: int,
) -> None:
    able = Simulation(LIMITS, Traffic(rate=2000, rows=(1,)), seed).run(5).rows / 5
    result = Simulation(LIMITS, Traffic(rate=3 * able, rows=(1,)), seed).run(5)
    assert result.outcomes["refused"] > 0.5 * result.outcomes.total()
    assert result.rows / 5 > 0.9 * able
    # No longer than the queue and two batches take.
    assert result.p99() < 1.5 * (200 + 64) / able


@pytest.mark.parametrize("seed", range(3))
def test_no_answer_comes_of_what_was_not_begun_in_time(seed: int) -> None:
    traffic = Traffic(rate=3000, rows=(1,), patience_s=0.05)
    result = Simulation(LIMITS, traffic, seed).run(5)
    assert result.outcomes["expired"] > 0
    # Handed over before the deadline, behind at most one batch, and computed.
    assert max(max(times) for times in result.seconds.values()) < 0.05 + 3 * 0.025


@pytest.mark.parametrize("seed", range(3))
def test_models_share_fairly_and_the_highest_priority_does_not_wait(seed: int) -> None:
    traffic = Traffic(rate=2400, models=("a", "b", "c"), rows=(1,), priorities=(1, 2, 2, 2))
    result = Simulation(LIMITS, traffic, seed).run(10)
    for model in traffic.models:
        assert result.p99(model, 1) < 0.15
        assert result.p99(model, 1) < 0.5 * result.p99(model, 2)
    counts = [len(result.seconds[model, 2]) for model in traffic.models]
    assert max(counts) < 1.2 * min(counts)


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [Simulation(LIMITS, Traffic(rate=800), 7, deaths=1.0).run(5) for _ in range(2)]
    assert runs[0] == runs[1]
