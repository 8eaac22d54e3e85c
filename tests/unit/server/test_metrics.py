"""Metrics without a server: events become figures, NVML's word becomes gauges, label values are bounded."""

import os
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Batch
from rootserve.server.observers.events import Refusal
from rootserve.server.observers.metrics import Metrics
from rootserve.server.observers.metrics_catalog import CATALOG, LABELS, REQUEST, Kind
from rootserve.server.observers.metrics_figures import Distributions
from rootserve.server.observers.metrics_gpu import gpu_collector
from rootserve.server.observers.metrics_state import process_usage
from rootserve.server.pending import Report, Timeline
from rootserve.server.refusals import Reason
from tests.support.pending import pending

FAKE_NVML = Path(__file__).parents[2] / "support" / "fake_nvml"
MODEL = "nin-orig"
INFER = "/inference.GRPCInferenceService/ModelInfer"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def timeline(total_ns: int = 4_000_000) -> Timeline:
    return Timeline(1_000_000, 500_000, 2_000_000, total_ns, 8, "cpu-0", "fake", "fp32")


def samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_the_catalogue_is_consistent() -> None:
    names = [metric.exposed_name for metric in CATALOG]
    assert len(names) == len(set(names))
    assert {label for metric in CATALOG for label in metric.labels} == set(LABELS)
    for metric in CATALOG:
        assert metric.name.startswith(("rootserve_", "nv_gpu_"))
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
        assert list(metric.buckets) == sorted(metric.buckets)
        assert metric.help.endswith(".")


def test_events_become_figures() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.answered(pending(3, model=MODEL), timeline())
    batch = Batch(1, MODEL, "cpu-0", (), 8, 1.0)
    metrics.batch_ended(batch, Report(1_000_000, 3_000_000), [])
    metrics.batch_ended(batch, Report(0, 9_000_000), [])  # it failed
    late = Refusal(Reason.DEADLINE_EXPIRED, "", "", 0.3, INFER, model=MODEL)
    metrics.refused(late)
    metrics.refused(Refusal(Reason.UNKNOWN_MODEL, "", "", 0.001, INFER))
    metrics.refused(Refusal(Reason.ANALYSES_FULL, "", "", 60.0, "/rootserve.v1/Analyze"))
    metrics.worker_lost("cpu-0")
    metrics.transferred("ModelInfer", 100, 0)
    metrics.transferred("ModelInfer", 0, 40)
    found = samples(registry)
    assert found["rootserve_request_seconds_sum", MODEL, "ok"] == pytest.approx(0.004)
    assert found["rootserve_request_seconds_sum", MODEL, "deadline_expired"] == pytest.approx(0.3)
    assert found["rootserve_queue_seconds_sum", MODEL] == pytest.approx(0.001)
    assert found["rootserve_batch_wait_seconds_sum", MODEL] == pytest.approx(0.0005)
    assert found["rootserve_compute_seconds_sum", MODEL] == pytest.approx(0.002)
    assert found["rootserve_batch_rows_sum", MODEL] == 8
    assert found["rootserve_rows_total", MODEL] == 3
    assert found["rootserve_refusals_total", MODEL, "deadline_expired"] == 1
    assert found["rootserve_refusals_total", "", "unknown_model"] == 1
    assert found["rootserve_refusals_total", "", "analyses_full"] == 1
    assert ("rootserve_request_seconds_sum", "", "analyses_full") not in found
    assert found["rootserve_deadline_misses_total", MODEL, "waiting"] == 1
    assert found["rootserve_worker_restarts_total", "cpu-0"] == 1
    assert found["rootserve_worker_busy_seconds_total", "cpu-0"] == pytest.approx(0.002)
    assert found["rootserve_received_bytes_total", "ModelInfer"] == 100
    assert found["rootserve_sent_bytes_total", "ModelInfer"] == 40
    assert not [key for key in found if key[0].endswith("_created")]


def test_a_worker_that_computes_batches_side_by_side_is_busy_once() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    second = 10**9
    for number, (began, ended) in enumerate([(1, 3), (2, 4), (6, 7), (5, 9), (9, 10)]):
        request = Request(number, MODEL, 1, 0.0)
        batch = Batch(number, MODEL, "cpu-0", (request,), 1, 0.0, beside=number < 4)
        metrics.batch_ended(batch, Report(began * second, ended * second), [None])
    found = samples(registry)
    assert found["rootserve_worker_busy_seconds_total", "cpu-0"] == pytest.approx(8)
    assert found["rootserve_compute_seconds_sum", MODEL] == pytest.approx(10)
    assert found["rootserve_batches_beside_total", MODEL] == 4
    assert found["rootserve_batch_rows_count", MODEL] == 5


def test_a_distribution_is_what_prometheus_client_would_make_of_it() -> None:
    bounds = REQUEST.buckets
    values = [*bounds, 0.0, 0.0123, 0.0123, 11.0, *(bound * 1.000001 for bound in bounds)]
    theirs = Histogram(REQUEST.name, REQUEST.help, REQUEST.labels, buckets=bounds, registry=None)
    ours = Distributions(REQUEST)
    for value in values:
        theirs.labels(MODEL, "ok").observe(value)
        ours.of(MODEL, "ok").observe(value)
    (expected,) = theirs.collect()
    made = ours.family()
    assert (made.name, made.type, made.documentation) == (
        expected.name,
        expected.type,
        expected.documentation,
    )
    assert {(one.name, *sorted(one.labels.items())): one.value for one in made.samples} == {
        (one.name, *sorted(one.labels.items())): one.value
        for one in expected.samples
        if not one.name.endswith("_created")
    }


def test_a_model_is_shown_at_zero_before_its_first_request() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.show_model(MODEL)
    metrics.show_worker("cpu-0")
    found = samples(registry)
    assert found["rootserve_request_seconds_count", MODEL, "ok"] == 0
    assert found["rootserve_refusals_total", MODEL, "queue_full"] == 0
    assert found["rootserve_refusals_total", "", "unknown_model"] == 0
    assert found["rootserve_deadline_misses_total", MODEL, "arrival"] == 0
    assert found["rootserve_analysis_images_total", MODEL] == 0
    assert found["rootserve_worker_restarts_total", "cpu-0"] == 0
    assert not any(found.values())


def test_latencies_carry_the_trace_as_their_exemplar() -> None:
    registry = CollectorRegistry()
    current = [TRACE_ID]
    metrics = Metrics(registry, lambda: current[0])
    metrics.answered(pending(model=MODEL), timeline())
    current[0] = ""
    metrics.answered(pending(model=MODEL), timeline(40_000_000))
    found = {
        sample.labels["le"]: sample.exemplar
        for family in text_string_to_metric_families(openmetrics(registry).decode())
        for sample in family.samples
        if sample.name == "rootserve_request_seconds_bucket"
    }
    assert found["0.005"].labels == {"trace_id": TRACE_ID}
    assert found["0.005"].value == pytest.approx(0.004)
    assert found["0.05"] is None
    assert TRACE_ID not in generate_latest(registry).decode()


def test_each_gpu_is_told_of_under_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FAKE_NVML)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    registry = CollectorRegistry()
    collector = gpu_collector()
    assert collector is not None
    registry.register(collector)
    found = samples(registry)
    first, second = "GPU-00000000", "GPU-00000001"
    assert found["rootserve_gpu_utilization_ratio", "1", second, "NVIDIA Fake"] == 0.75
    assert found["rootserve_gpu_memory_used_bytes", "0", first, "NVIDIA Fake"] == 400
    assert found["rootserve_gpu_memory_total_bytes", "0", first, "NVIDIA Fake"] == 1000
    assert found["rootserve_gpu_power_watts", "0", first, "NVIDIA Fake"] == 123.456
    assert found["nv_gpu_utilization", first] == 0.25
    assert found["nv_gpu_memory_used_bytes", second] == 400
    assert found["nv_gpu_memory_total_bytes", second] == 1000
    assert found["nv_gpu_power_usage", first] == 123.456
    assert ("nv_gpu_power_usage", second) not in found, "what a GPU cannot tell is left out"
    monkeypatch.delitem(sys.modules, "pynvml")


def test_without_a_driver_or_the_library_there_are_no_gpu_metrics(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_collector() is None
    no_driver = tmp_path / "pynvml.py"
    no_driver.write_text(
        "class NVMLError(Exception): ...\ndef nvmlInit(): raise NVMLError('no driver')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pynvml")
    assert gpu_collector() is None
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]
    monkeypatch.delitem(sys.modules, "pynvml")


def test_the_usage_of_a_process() -> None:
    used = process_usage(os.getpid())
    assert used is not None
    cpu_s, resident = used
    assert cpu_s > 0.01
    assert 10 * 2**20 < resident < 2**40
    assert process_usage(2**22 + 1) is None
