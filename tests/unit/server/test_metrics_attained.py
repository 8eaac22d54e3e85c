"""What was kept of deadlines and predictions, as metrics: told by events, without a server."""

import math

import pytest
from prometheus_client import CollectorRegistry

from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Batch
from rootserve.server.observers.events import Refusal
from rootserve.server.observers.metrics import Metrics
from rootserve.server.observers.metrics_attained import RESULTS
from rootserve.server.pending import Report, Timeline
from rootserve.server.refusals import Reason
from tests.support.pending import pending

MODEL, FAMILY = "nin-orig", "nin-auto"
INFER = "/inference.GRPCInferenceService/ModelInfer"
MS = 1_000_000


def timeline(total_ms: int, variant: str = "", accuracy: float | None = None) -> Timeline:
    return Timeline(
        0,
        0,
        0,
        total_ms * MS,
        1,
        "cpu-0",
        "fake",
        "fp32",
        0,
        variant=variant,
        accuracy=accuracy,
        predicted_ns=2 * MS,
    )


def found(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("rootserve_"), *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.value
    }


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, accuracy_of={MODEL: 0.9}.get)


def test_answers_are_in_time_or_late_by_their_own_deadline(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    for total_ms in (99, 101):
        metrics.answered(pending(model=MODEL, patience_s=0.1), timeline(total_ms))
    metrics.answered(pending(model=MODEL), timeline(60_000))
    figures = found(registry)
    assert figures["offered_total", MODEL, "yes", "in_time"] == 1
    assert figures["offered_total", MODEL, "yes", "late"] == 1
    assert figures["offered_total", MODEL, "no", "in_time"] == 1
    assert figures["accuracy_in_time_total", MODEL, "yes"] == 0.9, "not of the late one"
    assert figures["accuracy_in_time_total", MODEL, "no"] == 0.9


def test_a_family_counts_the_accuracy_and_the_name_of_what_computed_it(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    for variant, accuracy in (("nin-orig", 0.9), ("nin-root-16", 0.8), ("nin-root-16", 0.8)):
        one = pending(model=FAMILY, patience_s=0.1)
        metrics.answered(one, timeline(5, variant, accuracy))
    figures = found(registry)
    assert figures["accuracy_in_time_total", FAMILY, "yes"] == pytest.approx(2.5)
    assert figures["variant_answers_total", FAMILY, "nin-root-16"] == 2
    assert figures["variant_answers_total", FAMILY, "nin-orig"] == 1
    assert ("offered_total", "nin-orig", "yes", "in_time") not in figures


def test_an_accuracy_that_is_not_known_is_not_counted(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.answered(pending(model="untrained", patience_s=1.0), timeline(5))
    figures = found(registry)
    assert figures["offered_total", "untrained", "yes", "in_time"] == 1
    assert ("accuracy_in_time_total", "untrained", "yes") not in figures


@pytest.mark.parametrize(
    ("reason", "result"),
    [
        (Reason.DEADLINE_INFEASIBLE, "refused"),
        (Reason.DEADLINE_LOST, "refused"),
        (Reason.QUEUE_FULL, "refused"),
        (Reason.DEADLINE_EXPIRED, "expired"),
        (Reason.WORKER_LOST, "failed"),
        (Reason.CANCELLED, "cancelled"),
        (Reason.INVALID_REQUEST, None),
        (Reason.UNAUTHENTICATED, None),
    ],
)
def test_what_is_refused_was_offered_if_it_was_valid(
    registry: CollectorRegistry, metrics: Metrics, reason: Reason, result: str | None
) -> None:
    metrics.refused(Refusal(reason, "", "", 0.1, INFER, model=FAMILY, deadline_s=0.05))
    metrics.refused(Refusal(reason, "", "", 0.1, INFER, model=FAMILY, deadline_s=math.inf))
    metrics.refused(Refusal(reason, "", "", 0.1, INFER))
    metrics.refused(Refusal(reason, "", "", 0.1, "/rootserve.v1/Analyze", model=FAMILY))
    offered = {
        key[1:]: value for key, value in found(registry).items() if key[0] == "offered_total"
    }
    expected = {(FAMILY, deadline, result): 1 for deadline in ("yes", "no")} if result else {}
    assert offered == expected


def test_predictions_are_held_to_what_batches_took(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    request = Request(1, FAMILY, 4, 0.0)
    batch = Batch(1, MODEL, "cpu-0", (request,), 4, 1.0, predicted_s=0.1)
    for took_ms, decode_ms in ((80, 0), (99, 0), (95, 10), (120, 0)):
        report = Report(MS, (1 + took_ms) * MS, decode_ns=decode_ms * MS)
        metrics.batch_ended(batch, report, [])
    # Of these nothing was predicted: a part of a batch, one without a prediction, one that failed.
    metrics.batch_ended(batch, Report(MS, 1000 * MS, expired=(0,)), [])
    metrics.batch_ended(batch._replace(predicted_s=None), Report(MS, 1000 * MS), [])
    metrics.batch_ended(batch, Report(0, 1000 * MS), [])
    figures = found(registry)
    assert figures["prediction_ratio_count", MODEL] == 4
    assert figures["prediction_ratio_bucket", MODEL, "1.0"] == 3
    assert figures["prediction_ratio_bucket", MODEL, "0.9"] == 2
    assert figures["prediction_ratio_sum", MODEL] == pytest.approx(0.8 + 0.99 + 0.85 + 1.2)


def test_series_are_there_before_the_first_request(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.show_model(MODEL)
    metrics.show_family(FAMILY, (MODEL, "nin-root-16"))
    samples = [sample for family in registry.collect() for sample in family.samples]
    offered = {tuple(one.labels.values()) for one in samples if "offered" in one.name}
    assert offered == {
        (model, deadline, result)
        for model in (MODEL, FAMILY)
        for deadline in ("yes", "no")
        for result in RESULTS
    }
    variants = {tuple(one.labels.values()) for one in samples if "variant_answers" in one.name}
    assert variants == {(FAMILY, MODEL), (FAMILY, "nin-root-16")}
    predicted = {one.labels["model"] for one in samples if "prediction" in one.name}
    assert predicted == {MODEL}
    assert not any(one.value for one in samples)
