"""Traces of a real server: to a real OTLP receiver, to one that is down, and none when they are off."""

import json
import signal
import socket
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.support.otlp_receiver import OtlpReceiver, attributes, running_receiver
from tests.support.server_process import (
    ServerProcess,
    infer_request,
    plain_images,
    running_server,
    wait_until,
)

MODEL = "nin-root-16"
FAKE = ("--models", MODEL, "--engine", "fake", "--device", "cpu")
METHOD = "inference.GRPCInferenceService/ModelInfer"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = ("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01")


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with running_receiver() as started:
        yield started


@pytest.fixture(scope="module")
def server(receiver: OtlpReceiver) -> Iterator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        traces = ("--traces", "otlp", "--traces-endpoint", receiver.address)
        with running_server(*FAKE, *traces, "--log-format", "json") as started:
            yield started


def ask(server: ServerProcess, *metadata: tuple[str, str]) -> Any:
    request = infer_request(MODEL, plain_images(2), "id-1")
    return server.stub.ModelInfer(request, metadata=metadata, timeout=60)


def test_a_callers_trace_goes_on_through_the_server_to_the_receiver(
    server: ServerProcess, receiver: OtlpReceiver
) -> None:
    ask(server, CALLER)
    # It ends last, and may come in another message than those that it consists of.
    wait_until(lambda: [span for span in receiver.named(METHOD) if span.trace_id.hex() == TRACE_ID])
    wait_until(lambda: len(receiver.named("compute")) >= 2)
    mine = {span.name: span for span in receiver.spans if span.trace_id.hex() == TRACE_ID}
    assert set(mine) == {METHOD, "queue", "batch wait", "compute"}
    wire = mine[METHOD]
    assert wire.parent_span_id.hex() == "b7ad6b7169203331"
    assert attributes(wire)["rpc.response.status_code"] == "OK"
    assert attributes(mine["compute"])["rootserve.worker"] == "cpu-0"
    (batch,) = [
        span
        for span in receiver.named("batch")
        if wire.span_id in [link.span_id for link in span.links]
    ]
    assert [link.span_id for link in wire.links] == [batch.span_id]
    for resource in receiver.resources:
        assert resource["service.name"] == "rootserve"
        assert resource["deployment.environment.name"] == "test"


def test_latency_exemplars_and_log_lines_have_the_trace_id(server: ServerProcess) -> None:
    ask(server, CALLER)
    with pytest.raises(grpc.RpcError):
        server.stub.ModelInfer(infer_request("made-up", plain_images(1)), metadata=[CALLER])
    wait_until(lambda: "unknown_model" in server.log())
    lines = [json.loads(line) for line in server.log().splitlines()]
    (refusal,) = [line for line in lines if line.get("reason") == "unknown_model"]
    assert refusal["trace_id"] == TRACE_ID
    request = urllib.request.Request(
        f"http://{server.metrics_address}/metrics",
        headers={"Accept": "application/openmetrics-text; version=1.0.0"},
    )
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
    exemplars = [line for line in text.splitlines() if f'trace_id="{TRACE_ID}"' in line]
    assert any(line.startswith("rootserve_request_seconds_bucket") for line in exemplars)


def test_what_is_left_is_sent_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_receiver() as receiver:
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
        with running_server(*FAKE, "--traces", "otlp") as server:
            for _ in range(5):
                ask(server)
            assert not receiver.spans
        assert len(receiver.named(METHOD)) == 5


@pytest.mark.parametrize("listens", [False, True], ids=["nobody listens", "nobody answers"])
def test_a_receiver_that_is_down_hurts_nobody(
    listens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listens:
            taken.listen()
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        process = ServerProcess(*FAKE, "--traces", "otlp", "--traces-endpoint", endpoint)
        process.wait_ready()
        for _ in range(100):
            assert ask(process).parameters["batch_rows"].int64_param == 2
        wait_until(lambda: "Queue full, dropping Span" in process.log())
        log = process.end(signal.SIGTERM)
    assert process.process.returncode == 0, log
    assert "Traceback" not in log


def test_nothing_of_opentelemetry_is_loaded_when_traces_are_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with running_server(*FAKE) as server:
        ask(server, CALLER)
        log = server.log()
    assert "rootserve.server.observers.traces\n" in log  # imports are told
    assert "opentelemetry" not in log
