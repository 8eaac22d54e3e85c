"""What an operator sees: health, reflection, metrics, the catalogue."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from rootmodels.variants import VARIANTS
from rootserve.server.machine import usable_processors
from rootserve.server.placement import place
from rootserve.v1 import catalog_pb2, catalog_pb2_grpc
from tests.support.server_process import FREE_PORTS, ServerProcess, plain_images, running_server

MODELS = ("nin-orig", "nin-col-16")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server("--engine", "fake", "--models", ",".join(MODELS)) as started:
        yield started


def samples(server: ServerProcess) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
        text = page.read().decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_health_knows_the_server_and_each_model(server: ServerProcess) -> None:
    stub = health_pb2_grpc.HealthStub(server.channel)
    for service in ("", *MODELS):
        response = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nope"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(server: ServerProcess) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (response,) = stub.ServerReflectionInfo(iter([request]))
    names = {service.name for service in response.list_services_response.service}
    assert names == {
        "inference.GRPCInferenceService",
        "rootserve.v1.AnalysisService",
        "rootserve.v1.CatalogService",
        "rootserve.v1.ExplainService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_metrics_count_requests_rows_and_refusals(server: ServerProcess) -> None:
    before = samples(server)
    assert before["rootserve_request_seconds_count", "nin-orig", "ok"] == 0, "shown from the start"
    for _ in range(3):
        server.infer("nin-orig", plain_images(4))
    with pytest.raises(grpc.RpcError):
        server.infer("nin-orig", plain_images(33))
    with pytest.raises(grpc.RpcError):
        server.infer("a-name-a-caller-made-up", plain_images(1))
    after = samples(server)
    assert after["rootserve_request_seconds_count", "nin-orig", "ok"] == 3
    assert after["rootserve_rows_total", "nin-orig"] == 12
    assert after["rootserve_batch_rows_sum", "nin-orig"] == 12
    assert after["rootserve_queue_seconds_count", "nin-orig"] == 3
    assert after["rootserve_compute_seconds_count", "nin-orig"] == 3
    assert after["rootserve_rows_queued", "nin-orig"] == 0
    assert after["rootserve_refusals_total", "invalid_request", "nin-orig"] == 1
    assert after["rootserve_refusals_total", "", "unknown_model"] == 1
    assert not [key for key in after if "a-name-a-caller-made-up" in key]
    assert ("rootserve_request_seconds_bucket", "0.0001", "nin-orig", "ok") in after


def test_the_catalogue_has_every_variant_with_its_cost(server: ServerProcess) -> None:
    stub = catalog_pb2_grpc.CatalogServiceStub(server.channel)
    models = {
        model.name: model for model in stub.ListModels(catalog_pb2.ListModelsRequest()).models
    }
    assert list(models) == list(VARIANTS)
    orig = models["nin-orig"]
    assert (orig.params, orig.flops_paper - orig.macs) == (966_986, 1_418)
    assert orig.paper.accuracy == 0.9211
    assert orig.state == catalog_pb2.MODEL_STATE_READY
    assert (orig.engine, orig.precision, orig.image_size, len(orig.classes)) == (
        "fake",
        "fp32",
        32,
        10,
    )
    root_32 = models["nin-root-32"]
    assert not root_32.HasField("paper")
    assert root_32.state == catalog_pb2.MODEL_STATE_UNLOADED
    untrained = [model for model in models.values() if not model.trained]
    assert not [model for model in untrained if model.HasField("accuracy")]


def test_the_server_describes_itself(server: ServerProcess) -> None:
    stub = catalog_pb2_grpc.CatalogServiceStub(server.channel)
    info = stub.GetServerInfo(catalog_pb2.GetServerInfoRequest())
    assert info.version
    assert info.started_at.seconds > 1_600_000_000
    assert (info.max_batch_rows, info.max_queue_rows, info.max_delay_us) == (32, 1024, 0)
    assert {"python", "torch", "grpcio"} <= set(info.libraries)
    (worker,) = info.workers
    assert (worker.name, worker.device, worker.ready) == ("cpu-0", "cpu", True)
    assert [worker.pid] == server.worker_pids()
    assert worker.device_name


def test_for_throughput_each_worker_stays_on_processors_of_its_own() -> None:
    options = ("--device", "cpu", "--engine", "openvino", "--models", "nin-root-16")
    with running_server(*options, "--optimize-for", "throughput") as started:
        started.infer("nin-root-16", plain_images(8))
        allowed = [allowed_processors(pid) for pid in started.worker_pids()]
    numbers, available = processors = usable_processors()
    own = numbers if processors.are_ours else ()
    expected = [one.processors or numbers for one in place(available, own, "throughput")]
    # Every thread of a worker is on the worker's own processors.
    assert sorted(allowed, key=min) == [{processors} for processors in expected]


def allowed_processors(pid: int) -> set[tuple[int, ...]]:
    """Where the threads of a process may run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {tuple(sorted(os.sched_getaffinity(int(task.name)))) for task in tasks}


def test_a_service_whose_metrics_endpoint_dies_ends_in_order_with_a_status_that_says_so() -> None:
    program = """
from rootserve.server.main import main
from rootserve.server.observers.metrics_endpoint import MetricsEndpoint

async def fail(endpoint):
    raise OSError("told to fail")

MetricsEndpoint._serve = fail
main()
"""
    arguments = [*FREE_PORTS, "--models", "nin-orig", "--device", "cpu", "--engine", "fake"]
    command = [sys.executable, "-c", program, *arguments, "--grace-s", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "the metrics endpoint failed: nobody answers on port" in ended.stderr
    assert "OSError: told to fail" in ended.stderr
    assert "shutting down: finishing what was admitted" in ended.stderr
    assert ended.stderr.rstrip().endswith("stopped")
