"""Turns events into the counters and histograms of the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from server.core.reasons import Reason
from server.observers import metrics_catalog as catalog
from server.observers.events import Observer, Refusal, Timeline
from server.observers.metrics_catalog import Kind, Metric

# The stage at which a refusal for this reason was a missed deadline.
_MISSED = {Reason.DEADLINE_LOST: "arrival", Reason.DEADLINE_EXPIRED: "waiting"}
_NO_MODEL_REASONS = (
    Reason.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED,
    Reason.INVALID_REQUEST,
    Reason.UNKNOWN_MODEL,
)
_MODEL_REASONS = tuple(
    reason
    for reason in Reason
    if reason
    not in {
        Reason.UNAUTHENTICATED,
        Reason.PERMISSION_DENIED,
        Reason.UNKNOWN_MODEL,
        Reason.CONTROL_OFF,
        Reason.LOAD_FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class _OfModel:
    """The metrics of one model."""

    answered: Histogram
    queue: Histogram
    batch_wait: Histogram
    compute: Histogram
    batch_rows: Histogram
    rows: Counter


class Metrics(Observer):
    """An observer. Only names of models of the table become label values, or "".

    ``trace_id`` tells the trace of the request that is being answered or refused, as 32 hexadecimal
    digits, or "" when it is in none; it becomes the exemplar of the request's latency.
    """

    def __init__(
        self, registry: CollectorRegistry, trace_id: Callable[[], str] | None = None
    ) -> None:
        # A second series for each one, which nobody here asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._trace_id = trace_id
        self._request = _histogram(catalog.REQUEST, registry)
        self._queue = _histogram(catalog.QUEUE, registry)
        self._batch_wait = _histogram(catalog.BATCH_WAIT, registry)
        self._compute = _histogram(catalog.COMPUTE, registry)
        self._batch_rows = _histogram(catalog.BATCH_ROWS, registry)
        self._rows = _counter(catalog.ROWS, registry)
        self._refusals = _counter(catalog.REFUSALS, registry)
        self._deadline_misses = _counter(catalog.DEADLINE_MISSES, registry)
        self._received = _counter(catalog.RECEIVED, registry)
        self._sent = _counter(catalog.SENT, registry)
        self._worker_restarts = _counter(catalog.WORKER_RESTARTS, registry)
        self._worker_busy = _counter(catalog.WORKER_BUSY, registry)
        self._analysis_jobs = _gauge(catalog.ANALYSIS_JOBS, registry)
        self._analysis_images = _counter(catalog.ANALYSIS_IMAGES, registry)
        # What is counted for every request is looked up once: by label it costs as much as counting.
        self._of_model: dict[str, _OfModel] = {}
        self._busy_of: dict[str, Counter] = {}
        self._bytes_of: dict[str, tuple[Counter, Counter]] = {}
        for reason in _NO_MODEL_REASONS:
            self._refusals.labels("", reason.value)

    def show_model(self, model: str) -> None:
        """Show a model's series from the start, at zero: a rate misses the first event otherwise."""
        self._find(model)
        self._analysis_images.labels(model)
        for reason in _MODEL_REASONS:
            self._refusals.labels(model, reason.value)
        for stage in _MISSED.values():
            self._deadline_misses.labels(model, stage)

    def show_worker(self, worker: str) -> None:
        """Show a worker's series from the start."""
        self._worker_restarts.labels(worker)
        self._busy_of[worker] = self._worker_busy.labels(worker)

    def answered(self, model: str, rows: int, timeline: Timeline) -> None:
        """See :class:`server.observers.events.Observer`."""
        metrics = self._find(model)
        metrics.answered.observe(timeline.total_ns * 1e-9, self._exemplar())
        metrics.queue.observe(timeline.queue_ns * 1e-9)
        metrics.batch_wait.observe(timeline.batch_wait_ns * 1e-9)
        metrics.rows.inc(rows)

    def refused(self, refusal: Refusal) -> None:
        """See :class:`server.observers.events.Observer`."""
        labels = (refusal.model, refusal.reason.value)
        self._request.labels(*labels).observe(refusal.seconds, self._exemplar())
        self._refusals.labels(*labels).inc()
        if refusal.reason in _MISSED:
            self._deadline_misses.labels(refusal.model, _MISSED[refusal.reason]).inc()

    def computed(self, worker: str, model: str, rows: int, seconds: float) -> None:
        """See :class:`server.observers.events.Observer`."""
        metrics = self._find(model)
        metrics.compute.observe(seconds)
        metrics.batch_rows.observe(rows)
        if worker not in self._busy_of:
            self.show_worker(worker)
        self._busy_of[worker].inc(seconds)

    def worker_lost(self, worker: str) -> None:
        """See :class:`server.observers.events.Observer`."""
        self._worker_restarts.labels(worker).inc()

    def transferred(self, method: str, received: int, sent: int) -> None:
        """See :class:`server.observers.events.Observer`."""
        counters = self._bytes_of.get(method)
        if counters is None:
            counters = self._received.labels(method), self._sent.labels(method)
            self._bytes_of[method] = counters
        if received:
            counters[0].inc(received)
        if sent:
            counters[1].inc(sent)

    def _find(self, model: str) -> _OfModel:
        found = self._of_model.get(model)
        if found is None:
            found = _OfModel(
                answered=self._request.labels(model, "ok"),
                queue=self._queue.labels(model),
                batch_wait=self._batch_wait.labels(model),
                compute=self._compute.labels(model),
                batch_rows=self._batch_rows.labels(model),
                rows=self._rows.labels(model),
            )
            self._of_model[model] = found
        return found

    def _exemplar(self) -> dict[str, str] | None:
        trace_id = self._trace_id() if self._trace_id else ""
        return {"trace_id": trace_id} if trace_id else None


def _histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    assert metric.kind is Kind.HISTOGRAM, metric.name
    return Histogram(
        metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
    )


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    assert metric.kind is Kind.COUNTER, metric.name
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def _gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    assert metric.kind is Kind.GAUGE, metric.name
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)
