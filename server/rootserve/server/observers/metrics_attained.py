"""What was kept of deadlines and predictions, as counters and histograms of the catalogue."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric as Family

from rootserve.server.core.scheduler import Batch
from rootserve.server.observers import metrics_catalog as catalog
from rootserve.server.observers.events import Refusal
from rootserve.server.observers.metrics_figures import Distributions, Number, Numbers
from rootserve.server.pending import Pending, Report, Timeline
from rootserve.server.refusals import Reason

IN_TIME, LATE, EXPIRED, REFUSED, FAILED, CANCELLED = RESULTS = (
    "in_time",
    "late",
    "expired",
    "refused",
    "failed",
    "cancelled",
)
# What became of a valid request that was refused for this reason; the others never were one.
_RESULT_OF = {
    Reason.MODEL_NOT_READY: REFUSED,
    Reason.QUEUE_FULL: REFUSED,
    Reason.MEMORY_FULL: REFUSED,
    Reason.DEADLINE_LOST: REFUSED,
    Reason.DEADLINE_INFEASIBLE: REFUSED,
    Reason.DRAINING: REFUSED,
    Reason.DEADLINE_EXPIRED: EXPIRED,
    Reason.CANCELLED: CANCELLED,
    Reason.INTERNAL_ERROR: FAILED,
    Reason.MODEL_FAILURE: FAILED,
    Reason.WORKER_LOST: FAILED,
}
_YES_OR_NO = ("yes", "no")
_NEVER = math.inf


@dataclass(frozen=True, slots=True)
class _Kept:
    """The figures of answers of one model, with a deadline or without, looked up once."""

    in_time: Number
    late: Number
    accuracy: Number


class AttainedFigures:
    """Counts. ``accuracy_of`` tells the accuracy of a model, 0..1; None if it is not known."""

    def __init__(self, accuracy_of: Callable[[str], float | None]) -> None:
        self._accuracy_of = accuracy_of
        self._offered = Numbers(catalog.OFFERED)
        self._accuracy = Numbers(catalog.ACCURACY_IN_TIME)
        self._variants = Numbers(catalog.VARIANT_ANSWERS)
        self._predictions = Distributions(catalog.PREDICTION)
        self._kept: dict[tuple[str, str], _Kept] = {}

    def families(self) -> Iterator[Family]:
        """All of them as they are now; called from the thread of a scrape."""
        for figures in (self._offered, self._accuracy, self._variants, self._predictions):
            yield figures.family()

    def show_model(self, model: str) -> None:
        """Show a model's series from the start."""
        self._show_offered(model)
        # Of variants alone: a family's batches are theirs.
        self._predictions.of(model)

    def show_family(self, family: str, variants: tuple[str, ...]) -> None:
        """Show from the start the series of a family that is served as one model."""
        self._show_offered(family)
        for variant in variants:
            self._variants.of(family, variant)

    def _show_offered(self, model: str) -> None:
        for deadline in _YES_OR_NO:
            self._find(model, deadline)
            for result in RESULTS:
                self._offered.of(model, deadline, result)

    def answered(self, pending: Pending, timeline: Timeline) -> None:
        """See :class:`rootserve.server.observers.events.Observer`."""
        request = pending.request
        left_s = request.deadline_s - request.arrived_s
        kept = self._find(request.model, "yes" if left_s < _NEVER else "no")
        if timeline.total_ns * 1e-9 <= left_s:
            kept.in_time.add()
            accuracy = timeline.accuracy
            if accuracy is None:
                accuracy = self._accuracy_of(request.model)
            if accuracy is not None:
                kept.accuracy.add(accuracy)
        else:
            kept.late.add()
        if timeline.variant:
            self._variants.of(request.model, timeline.variant).add()

    def refused(self, refusal: Refusal) -> None:
        """As above, of a request for inference."""
        result = _RESULT_OF.get(refusal.reason)
        if result is not None and refusal.model:
            deadline = "yes" if refusal.deadline_s < _NEVER else "no"
            self._offered.of(refusal.model, deadline, result).add()

    def computed(self, batch: Batch, report: Report) -> None:
        """``batch`` was computed."""
        # A part of a batch was not predicted, and pictures take their own time.
        if batch.predicted_s and not (report.expired or report.refused):
            took_s = (report.ended_ns - report.began_ns - report.decode_ns) * 1e-9
            self._predictions.of(batch.model).observe(took_s / batch.predicted_s)

    def _find(self, model: str, deadline: str) -> _Kept:
        found = self._kept.get((model, deadline))
        if found is None:
            found = self._kept[model, deadline] = _Kept(
                in_time=self._offered.of(model, deadline, IN_TIME),
                late=self._offered.of(model, deadline, LATE),
                accuracy=self._accuracy.of(model, deadline),
            )
        return found
