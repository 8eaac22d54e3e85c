"""Why requests went as they did, and how long batches take: what the server tells of it, as plain values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Any

from rootserve.client.errors import Promise
from rootserve.v1 import explain_pb2

_NS = 1e-9


@dataclass(frozen=True, slots=True)
class Candidate:
    """A batch that could have been: done so many seconds after it was formed, and what was said of it."""

    variant: str
    rows: int
    finish_s: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Why a family's batch is what it is. Fields as in `rootserve.v1.Choice`, times in seconds."""

    slack_s: float | None
    waiting: int
    rate: float
    reason: str
    candidates: Sequence[Candidate]


@dataclass(frozen=True, slots=True)
class ExplainedBatch:
    """A request's batch. Fields as in `rootserve.v1.ExplainedBatch`, times in seconds."""

    variant: str
    accuracy: float | None
    worker: str
    rows: int
    requests: int
    shared_with: Sequence[str]
    queue_s: float
    batch_wait_s: float
    compute_s: float
    predicted_s: float | None
    choice: Choice | None
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """One request, from its arrival to its end. Fields as in `rootserve.v1.Explanation`, times in seconds.

    `arrived_at` is ISO 8601 in UTC.
    """

    request_id: str
    model: str
    arrived_at: str
    rows: int
    priority: int
    deadline_s: float | None
    accuracy_floor: float
    variants: Sequence[str]
    caller: str
    rows_waiting: int
    rows_computing: int
    outcome: str
    message: str
    total_s: float
    workers_lost: int
    promise: Promise | None
    batch: ExplainedBatch | None

    def to_json(self) -> dict[str, Any]:
        """The fields by name, ready for `json.dumps`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long batches take that are alike. Fields as in `rootserve.v1.Latency`, times in seconds."""

    worker_kind: str
    model: str
    form: str
    rows: int
    count: int
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """How long batches take; `document` has all that the server knows of it, ready for `json.dumps`."""

    latencies: Sequence[Latency]
    document: Mapping[str, Any]


def read_latency_table(message: explain_pb2.GetLatencyTableResponse) -> LatencyTable:
    """Turn the wire's table into plain values."""
    latencies = tuple(
        Latency(
            worker_kind=one.worker_kind,
            model=one.model,
            form=one.form,
            rows=one.rows,
            count=one.count,
            p50_s=one.p50_ns * _NS,
            p99_s=one.p99_ns * _NS,
        )
        for one in message.latencies
    )
    return LatencyTable(latencies, json.loads(message.document))


def read_explanation(message: explain_pb2.Explanation) -> Explanation:
    """Turn the wire's explanation into a plain value."""
    return Explanation(
        request_id=message.request_id,
        model=message.model,
        arrived_at=message.arrived_at.ToDatetime(tzinfo=UTC).isoformat(timespec="milliseconds"),
        rows=message.rows,
        priority=message.priority,
        deadline_s=message.deadline_ns * _NS if message.HasField("deadline_ns") else None,
        accuracy_floor=message.accuracy_floor,
        variants=tuple(message.variants),
        caller=message.caller,
        rows_waiting=message.rows_waiting,
        rows_computing=message.rows_computing,
        outcome=message.outcome,
        message=message.message,
        total_s=message.total_ns * _NS,
        workers_lost=message.workers_lost,
        promise=_promise(message) if message.HasField("promise") else None,
        batch=_batch(message.batch) if message.HasField("batch") else None,
    )


def _promise(message: explain_pb2.Explanation) -> Promise:
    promise = message.promise
    floor = promise.accuracy_floor_fitting if promise.HasField("accuracy_floor_fitting") else None
    earliest_s = promise.earliest_ns * _NS if promise.HasField("earliest_ns") else None
    return Promise(message.model, earliest_s, floor)


def _batch(batch: explain_pb2.ExplainedBatch) -> ExplainedBatch:
    return ExplainedBatch(
        variant=batch.variant,
        accuracy=batch.accuracy if batch.HasField("accuracy") else None,
        worker=batch.worker,
        rows=batch.rows,
        requests=batch.requests,
        shared_with=tuple(batch.shared_with),
        queue_s=batch.queue_ns * _NS,
        batch_wait_s=batch.batch_wait_ns * _NS,
        compute_s=batch.compute_ns * _NS,
        predicted_s=batch.predicted_ns * _NS if batch.HasField("predicted_ns") else None,
        choice=_choice(batch.choice) if batch.HasField("choice") else None,
        beside=batch.beside,
    )


def _choice(choice: explain_pb2.Choice) -> Choice:
    return Choice(
        slack_s=choice.slack_ns * _NS if choice.HasField("slack_ns") else None,
        waiting=choice.waiting,
        rate=choice.rate,
        reason=choice.reason,
        candidates=tuple(
            Candidate(one.variant, one.rows, one.finish_ns * _NS, one.verdict)
            for one in choice.candidates
        ),
    )
