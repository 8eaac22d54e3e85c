"""The Prometheus catalogue: every metric with its name, unit, labels and buckets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from server.observers.events import Refusal, Timeline

# 100 us to 10 s in steps of about 2: a small network answers in under a millisecond.
LATENCY_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Turns events into metrics. Only names of served models become label values, or ""."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._request = Histogram(
            "rootserve_request_seconds",
            "Time from the arrival of a request to its answer or refusal.",
            ["model", "outcome"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._queue = Histogram(
            "rootserve_queue_seconds",
            "Time a request waited until its batch was closed.",
            ["model"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._batch_wait = Histogram(
            "rootserve_batch_wait_seconds",
            "Time a closed batch waited until a worker began to compute it, per request.",
            ["model"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._compute = Histogram(
            "rootserve_compute_seconds",
            "Time a worker computed a batch.",
            ["model"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._batch_rows = Histogram(
            "rootserve_batch_rows",
            "Rows (images) per batch.",
            ["model"],
            buckets=ROWS_BUCKETS,
            registry=registry,
        )
        self._rows = Counter(
            "rootserve_rows",
            "Rows (images) answered.",
            ["model"],
            registry=registry,
        )
        self._rows_queued = Gauge(
            "rootserve_rows_queued",
            "Rows (images) that wait for a worker.",
            ["model"],
            registry=registry,
        )
        self._refusals = Counter(
            "rootserve_refusals",
            "Requests that got no answer, by reason.",
            ["model", "reason"],
            registry=registry,
        )

    def follow_queues(self, models: Iterable[str], rows_queued: Callable[[str], int]) -> None:
        """Read the queue lengths at each scrape, and show every served model from the start."""
        for model in models:
            self._rows_queued.labels(model).set_function(partial(rows_queued, model))
            self._request.labels(model, "ok")
            for metric in (self._queue, self._batch_wait, self._compute, self._batch_rows):
                metric.labels(model)
            self._rows.labels(model)

    def answered(self, model: str, rows: int, timeline: Timeline) -> None:
        """See :class:`server.observers.events.Observer`."""
        self._request.labels(model, "ok").observe(timeline.total_ns * 1e-9)
        self._queue.labels(model).observe(timeline.queue_ns * 1e-9)
        self._batch_wait.labels(model).observe(timeline.batch_wait_ns * 1e-9)
        self._rows.labels(model).inc(rows)

    def refused(self, refusal: Refusal) -> None:
        """See :class:`server.observers.events.Observer`."""
        labels = (refusal.model, refusal.reason.value)
        self._request.labels(*labels).observe(refusal.seconds)
        self._refusals.labels(*labels).inc()

    def computed(self, model: str, rows: int, seconds: float) -> None:
        """See :class:`server.observers.events.Observer`."""
        self._compute.labels(model).observe(seconds)
        self._batch_rows.labels(model).observe(rows)
