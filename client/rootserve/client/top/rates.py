"""Two readings of a server become one view: rates, shares and estimated quantiles in between."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rootserve.client.top.sample import EMPTY, Histogram, ModelSample, Sample, WorkerSample


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model. What needs two readings is None until there are two, and without requests."""

    model: str
    ready: bool
    requests_per_s: float | None
    rows_per_s: float | None
    p50_s: float | None
    p99_s: float | None
    batch_rows: float | None
    queued_rows: int
    in_flight_rows: int
    refused_per_s: float | None
    weights: str = ""
    """First digits of the SHA-256 of those that are live; "" if there are none, or nothing is told."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker. `busy` is the share of time it computes, 0..1."""

    worker: str
    device: str
    up: bool
    busy: float | None
    restarts: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class View:
    """What is shown: the server between two readings `interval_s` apart; None if there is only one."""

    version: str
    serving: bool
    started_s: float
    interval_s: float | None
    models: Sequence[ModelRow]
    workers: Sequence[WorkerRow]

    def to_json(self) -> dict[str, Any]:
        """The fields by name, ready for `json.dumps`."""
        return asdict(self)


def compare(before: Sample | None, now: Sample) -> View:
    """The view of `now`, with rates since `before`.

    A server that was restarted in between, so that its counters began again, has only one reading.
    """
    if before is not None and _began_again(before, now):
        before = None
    interval_s = None if before is None else now.at_s - before.at_s
    return View(
        version=now.version,
        serving=now.serving,
        started_s=now.started_s,
        interval_s=interval_s,
        models=[
            _model_row(name, before.models.get(name) if before else None, model, interval_s)
            for name, model in now.models.items()
        ],
        workers=[
            _worker_row(name, before.workers.get(name) if before else None, worker, interval_s)
            for name, worker in now.workers.items()
        ],
    )


def quantile(share: float, before: Histogram, now: Histogram) -> float | None:
    """An estimate of the quantile of what was counted between two readings; None if nothing was.

    Within a bucket the values are taken to be spread evenly, as Prometheus' `histogram_quantile` does; in
    the last, unbounded one its lower bound is given, which is then too little.
    """
    if before.bounds != now.bounds:
        before = Histogram(now.bounds, (0.0,) * len(now.bounds))
    counts = [later - earlier for earlier, later in zip(before.counts, now.counts, strict=True)]
    if counts[-1] <= 0:
        return None
    rank = share * counts[-1]
    lower, below = 0.0, 0.0
    for bound, count in zip(now.bounds, counts, strict=True):
        if count >= rank and count > below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def _began_again(before: Sample, now: Sample) -> bool:
    if before.started_s != now.started_s or now.at_s <= before.at_s:
        return True
    return any(
        model.latency.count < earlier.latency.count or model.answered_rows < earlier.answered_rows
        for name, model in now.models.items()
        if (earlier := before.models.get(name))
    )


def _model_row(
    name: str, before: ModelSample | None, now: ModelSample, interval_s: float | None
) -> ModelRow:
    latency = before.latency if before else EMPTY
    batches = before.batch_rows if before else EMPTY
    compared = before is not None
    new_batches = now.batch_rows.count - batches.count
    return ModelRow(
        model=name,
        ready=now.ready,
        requests_per_s=_rate(latency.count if before else None, now.latency.count, interval_s),
        rows_per_s=_rate(before.answered_rows if before else None, now.answered_rows, interval_s),
        p50_s=quantile(0.5, latency, now.latency) if compared else None,
        p99_s=quantile(0.99, latency, now.latency) if compared else None,
        batch_rows=(now.batch_rows.total - batches.total) / new_batches
        if compared and new_batches > 0
        else None,
        queued_rows=round(now.queued_rows),
        in_flight_rows=round(now.in_flight_rows),
        refused_per_s=_rate(before.refused if before else None, now.refused, interval_s),
        weights=now.weights,
    )


def _worker_row(
    name: str, before: WorkerSample | None, now: WorkerSample, interval_s: float | None
) -> WorkerRow:
    busy = _rate(before.busy_s if before else None, now.busy_s, interval_s)
    return WorkerRow(
        worker=name,
        device=now.device,
        up=now.up,
        # A batch counts when it ends, so that a short interval may hold more than its share.
        busy=None if busy is None else min(1.0, busy),
        restarts=round(now.restarts),
        memory_bytes=None if now.memory_bytes is None else round(now.memory_bytes),
    )


def _rate(before: float | None, now: float, interval_s: float | None) -> float | None:
    if before is None or interval_s is None:
        return None
    return max(0.0, now - before) / interval_s
