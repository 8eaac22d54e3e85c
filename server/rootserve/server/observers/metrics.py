"""Turns events into the counters and histograms of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from typing_extensions import override

from rootserve.server.core.scheduler import Batch
from rootserve.server.observers import metrics_catalog as catalog
from rootserve.server.observers.events import Observer, Refusal
from rootserve.server.observers.metrics_attained import AttainedFigures
from rootserve.server.observers.metrics_figures import Distribution, Distributions, Number, Numbers
from rootserve.server.pending import Pending, Report, Timeline
from rootserve.server.refusals import Reason

_INFERENCE = frozenset(
    f"/inference.GRPCInferenceService/{name}" for name in ("ModelInfer", "ModelStreamInfer")
)
# The stage at which a refusal for this reason was a missed deadline.
_MISSED = {Reason.DEADLINE_LOST: "arrival", Reason.DEADLINE_EXPIRED: "waiting"}
_ANALYSIS_OUTCOMES = ("ok", "failed", "cancelled")
# A request is refused for these only when its model is known.
_ONLY_OF_A_MODEL = (
    Reason.MODEL_NOT_READY,
    Reason.QUEUE_FULL,
    Reason.DEADLINE_INFEASIBLE,
    Reason.DEADLINE_LOST,
    Reason.DEADLINE_EXPIRED,
    Reason.DRAINING,
    Reason.MODEL_FAILURE,
    Reason.WORKER_LOST,
)
_MODEL_REASONS = (
    *_ONLY_OF_A_MODEL,
    Reason.INVALID_REQUEST,
    Reason.UNKNOWN_REGION,
    Reason.CANCELLED,
    Reason.INTERNAL_ERROR,
)
_NO_MODEL_REASONS = tuple(reason for reason in Reason if reason not in _ONLY_OF_A_MODEL)


@dataclass(frozen=True, slots=True)
class _OfModel:
    """The figures of one model, looked up once: every request needs them."""

    answered: Distribution
    queue: Distribution
    batch_wait: Distribution
    compute: Distribution
    batch_rows: Distribution
    beside: Number
    rows: Number


class _Busy:
    """The time in which a worker computed, of batches that may overlap."""

    def __init__(self) -> None:
        self._began_ns = self._ended_ns = 0

    def more_s(self, began_ns: int, ended_ns: int) -> float:
        """Seconds that a batch adds, told when it has ended."""
        if began_ns > self._ended_ns:
            self._began_ns, self._ended_ns = began_ns, ended_ns
            return (ended_ns - began_ns) * 1e-9
        before_ns = max(0, self._began_ns - began_ns)
        behind_ns = max(0, ended_ns - self._ended_ns)
        self._began_ns -= before_ns
        self._ended_ns += behind_ns
        return (before_ns + behind_ns) * 1e-9


class Metrics(Observer, Collector):
    """An observer. Only names of models of the table become label values, or "".

    ``trace_id`` tells the trace of the request that is being answered or refused, as 32 hexadecimal
    digits, or "" when it is in none; it becomes the exemplar of the request's latency. ``accuracy_of`` tells
    the accuracy of a model, 0..1, or None.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        trace_id: Callable[[], str] | None = None,
        accuracy_of: Callable[[str], float | None] = lambda _: None,
    ) -> None:
        self._trace_id = trace_id
        self._attained = AttainedFigures(accuracy_of)
        self._request = Distributions(catalog.REQUEST)
        self._queue = Distributions(catalog.QUEUE)
        self._batch_wait = Distributions(catalog.BATCH_WAIT)
        self._compute = Distributions(catalog.COMPUTE)
        self._batch_rows = Distributions(catalog.BATCH_ROWS)
        self._beside = Numbers(catalog.BATCHES_BESIDE)
        self._rows = Numbers(catalog.ROWS)
        self._refusals = Numbers(catalog.REFUSALS)
        self._deadline_misses = Numbers(catalog.DEADLINE_MISSES)
        self._received = Numbers(catalog.RECEIVED)
        self._sent = Numbers(catalog.SENT)
        self._worker_restarts = Numbers(catalog.WORKER_RESTARTS)
        self._worker_busy = Numbers(catalog.WORKER_BUSY)
        self._analysis_jobs = Numbers(catalog.ANALYSIS_JOBS)
        self._analysis_images = Numbers(catalog.ANALYSIS_IMAGES)
        self._analyses = Numbers(catalog.ANALYSES)
        self._loads = Numbers(catalog.MODEL_LOADS)
        self._of_model: dict[str, _OfModel] = {}
        self._busy: dict[str, _Busy] = {}
        self._analysis_jobs.of()
        for reason in _NO_MODEL_REASONS:
            self._refusals.of("", reason.value)
        registry.register(self)

    def describe(self) -> Iterable[Family]:
        """Nothing: the names are those of the catalogue, each once."""
        return []

    def collect(self) -> Iterator[Family]:
        """All families as they are now; called from the thread of a scrape."""
        for figures in vars(self).values():
            if isinstance(figures, Numbers | Distributions):
                yield figures.family()
        yield from self._attained.families()

    def show_model(self, model: str) -> None:
        """Show a model's series from the start, at zero: a rate misses the first event otherwise."""
        self._show(model)
        self._attained.show_model(model)

    def show_family(self, family: str, variants: tuple[str, ...]) -> None:
        """Show those of a family that is served as one model, and may be computed by ``variants``."""
        self._show(family)
        self._attained.show_family(family, variants)

    def _show(self, model: str) -> None:
        self._find(model)
        self._analysis_images.of(model)
        for outcome in _ANALYSIS_OUTCOMES:
            self._analyses.of(model, outcome)
        for reason in _MODEL_REASONS:
            self._refusals.of(model, reason.value)
        for stage in _MISSED.values():
            self._deadline_misses.of(model, stage)

    def show_worker(self, worker: str) -> None:
        """Show a worker's series from the start."""
        self._worker_restarts.of(worker)
        self._worker_busy.of(worker)

    @override
    def answered(self, pending: Pending, timeline: Timeline) -> None:
        figures = self._find(pending.request.model)
        trace_id = self._trace_id() if self._trace_id else ""
        figures.answered.observe(timeline.total_ns * 1e-9, trace_id)
        figures.queue.observe(timeline.queue_ns * 1e-9)
        figures.batch_wait.observe(timeline.batch_wait_ns * 1e-9)
        figures.rows.add(pending.request.rows)
        self._attained.answered(pending, timeline)

    @override
    def refused(self, refusal: Refusal) -> None:
        model, reason = refusal.model, refusal.reason
        trace_id = self._trace_id() if self._trace_id else ""
        if refusal.method in _INFERENCE:
            self._request.of(model, reason.value).observe(refusal.seconds, trace_id)
            self._attained.refused(refusal)
        self._refusals.of(model, reason.value).add()
        if reason in _MISSED:
            self._deadline_misses.of(model, _MISSED[reason]).add()

    @override
    def batch_ended(self, batch: Batch, report: Report, requests: Sequence[Pending | None]) -> None:
        if report.began_ns:
            figures = self._find(batch.model)
            seconds = (report.ended_ns - report.began_ns) * 1e-9
            figures.compute.observe(seconds)
            figures.batch_rows.observe(batch.rows)
            figures.beside.add(batch.beside)
            busy = self._busy.get(batch.worker)
            if busy is None:
                busy = self._busy[batch.worker] = _Busy()
            more_s = busy.more_s(report.began_ns, report.ended_ns)
            self._worker_busy.of(batch.worker).add(more_s)
            self._attained.computed(batch, report)

    @override
    def worker_lost(self, worker: str) -> None:
        self._worker_restarts.of(worker).add()

    @override
    def transferred(self, method: str, received: int, sent: int) -> None:
        self._received.of(method).add(received)
        self._sent.of(method).add(sent)

    @override
    def analysis_began(self, model: str) -> None:
        self._analysis_jobs.of().add()

    @override
    def model_loaded(self, model: str, outcome: str) -> None:
        self._loads.of(model, outcome).add()

    @override
    def analysed(self, model: str, images: int) -> None:
        self._analysis_images.of(model).add(images)

    @override
    def analysis_ended(self, model: str, outcome: str) -> None:
        self._analysis_jobs.of().add(-1)
        self._analyses.of(model, outcome).add()

    def _find(self, model: str) -> _OfModel:
        found = self._of_model.get(model)
        if found is None:
            found = _OfModel(
                answered=self._request.of(model, "ok"),
                queue=self._queue.of(model),
                batch_wait=self._batch_wait.of(model),
                compute=self._compute.of(model),
                batch_rows=self._batch_rows.of(model),
                beside=self._beside.of(model),
                rows=self._rows.of(model),
            )
            self._of_model[model] = found
        return found
