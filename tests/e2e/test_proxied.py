"""What a proxy tells a server, and a server a proxy: a real Envoy between a caller and real servers."""

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from rootserve.cluster.envoy_config import configuration
from rootserve.cluster.envoy_process import envoy_program
from rootserve.cluster.options import EnvoyOptions, parse_servers
from rootserve.server.wire.load_report import TRAILER
from tests.support.certificates import make_certificates
from tests.support.envoy import INSTALLED, MISSING, Envoy, free_ports, running_envoy
from tests.support.otlp_receiver import running_receiver
from tests.support.server_process import (
    ServerProcess,
    command_image,
    infer_request,
    logits,
    plain_images,
    running_server,
    wait_until,
)

pytestmark = pytest.mark.skipif(not INSTALLED, reason=MISSING)

MODEL = "nin-root-16"
FAKE = ("--models", MODEL, "--engine", "fake", "--device", "cpu")
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@contextmanager
def stub_of(address: str) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server(*FAKE, "--access-log", "on", "--log-format", "json") as started:
        yield started


@pytest.fixture(scope="module")
def envoy(server: ServerProcess) -> Iterator[Envoy]:
    with running_envoy([server.address]) as started:
        yield started


def logged(server: ServerProcess, request_id: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log().splitlines()]
    return [line for line in lines if line.get("request_id") == request_id]


def test_the_request_id_is_the_same_for_caller_proxy_and_server(
    server: ServerProcess, envoy: Envoy
) -> None:
    with stub_of(envoy.address) as stub:
        _, call = stub.ModelInfer.with_call(infer_request(MODEL, plain_images(1)), timeout=30)
    made = dict(call.initial_metadata())["x-request-id"]
    wait_until(lambda: logged(server, made))
    wait_until(lambda: [line for line in envoy.lines() if line["request_id"] == made])
    (line,) = [line for line in envoy.lines() if line["request_id"] == made]
    assert (line["code"], line["server"], line["tries"]) == ("OK", server.address, 1)


@pytest.mark.parametrize("model", [MODEL, "no-such-model"])
@pytest.mark.parametrize(("own", "told"), [("", "from-header"), ("own-7", "own-7")])
def test_an_id_of_the_callers_goes_through_and_the_requests_own_wins(
    server: ServerProcess, envoy: Envoy, model: str, own: str, told: str
) -> None:
    told, own = f"{told}-{model}", own and f"{own}-{model}"
    metadata = [("x-request-id", f"from-header-{model}")]
    with stub_of(envoy.address) as stub:
        call = stub.ModelInfer.future(
            infer_request(model, plain_images(1), own), timeout=30, metadata=metadata
        )
        assert (call.code() is grpc.StatusCode.OK) == (model == MODEL)
        if model == MODEL:
            assert call.result().id == own, "only its own id is repeated"
    wait_until(lambda: logged(server, told))


def test_the_trace_context_goes_through_and_is_honoured() -> None:
    metadata = [("traceparent", f"00-{TRACE}-{SPAN}-01"), ("x-request-id", "traced-1")]
    with running_receiver() as receiver:
        traces = ("--traces", "otlp", "--traces-endpoint", receiver.address)
        with running_server(*FAKE, *traces) as server, running_envoy([server.address]) as envoy:
            with stub_of(envoy.address) as stub:
                request = infer_request(MODEL, plain_images(1))
                stub.ModelInfer(request, timeout=30, metadata=metadata)
            name = "inference.GRPCInferenceService/ModelInfer"
            wait_until(lambda: receiver.named(name))
            (span,) = receiver.named(name)
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == SPAN
    ids = [one.value.string_value for one in span.attributes if one.key == "rootserve.request.id"]
    assert ids == ["traced-1"]


class Timed(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Notes what is left of each deadline, and refuses the first call after a while."""

    def __init__(self) -> None:
        self.left_s: list[float] = []

    def ModelInfer(  # noqa: N802 - the protocol's name
        self, request: oip.ModelInferRequest, context: grpc.ServicerContext
    ) -> oip.ModelInferResponse:
        self.left_s.append(context.time_remaining())
        if len(self.left_s) == 1:
            threading.Event().wait(0.5)
            context.abort(grpc.StatusCode.UNAVAILABLE, "not here")
        return oip.ModelInferResponse()


def test_the_second_server_is_told_what_the_first_has_left_of_the_deadline() -> None:
    timed = Timed()
    servers = [grpc.server(ThreadPoolExecutor(2)) for _ in range(2)]
    ports = []
    for server in servers:
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(timed, server)
        healthy = health.HealthServicer()
        healthy.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        server.start()
    try:
        with (
            running_envoy([f"127.0.0.1:{port}" for port in ports]) as envoy,
            stub_of(envoy.address) as stub,
        ):
            stub.ModelInfer(oip.ModelInferRequest(), timeout=60)
    finally:
        for server in servers:
            server.stop(None).wait()
    first, second = timed.left_s
    assert 0.4 < first - second < 60
    assert first < 61


def test_a_deadline_that_passes_in_the_queue_is_the_servers_to_tell(
    server: ServerProcess, envoy: Envoy
) -> None:
    request = infer_request(MODEL, plain_images(1), "late-1")
    request.parameters["deadline_ms"].int64_param = 1
    slow = infer_request(MODEL, command_image(b"sleep" + bytes([50])))
    with stub_of(envoy.address) as stub:
        ahead = stub.ModelInfer.future(slow, timeout=30)
        wait_until(lambda: envoy.figure("envoy_cluster_upstream_rq_active") >= 1)
        late = stub.ModelInfer.future(request, timeout=30)
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert ahead.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_what_changes_one_server_is_refused_by_the_proxy(envoy: Envoy, method: str) -> None:
    request = getattr(oip, f"{method}Request")(model_name=MODEL)
    with stub_of(envoy.address) as stub:
        call = getattr(stub, method).future(request, timeout=30)
        assert call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "ask that server itself" in call.details()


def test_large_requests_and_health_go_through(server: ServerProcess, envoy: Envoy) -> None:
    options = [("grpc.max_receive_message_length", 2**27), ("grpc.max_send_message_length", 2**27)]
    images = plain_images(32, 5)
    with grpc.insecure_channel(envoy.address, options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert logits(stub.ModelInfer(infer_request(MODEL, images), timeout=60)).shape == (32, 10)
        too_large = oip.ModelInferRequest(model_name=MODEL, raw_input_contents=[bytes(70 * 2**20)])
        call = stub.ModelInfer.future(too_large, timeout=60)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=30
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert envoy.figure("envoy_cluster_outlier_detection_ejections_enforced_total") == 0


def test_tls_on_both_sides_with_certificates_of_all(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    files = {name: str(made.path(f"{name}.crt")) for name in ("ca", "server", "client")}
    keys = {name: str(made.path(f"{name}.key")) for name in ("server", "client")}
    own = ("--tls-cert", files["server"], "--tls-key", keys["server"])
    own += ("--tls-client-ca", files["ca"])
    servers = ("--servers-ca", files["ca"], "--servers-cert", files["client"])
    servers += ("--servers-key", keys["client"], "--servers-name", "localhost")
    credentials = grpc.ssl_channel_credentials(
        made.content("ca.crt"), made.content("client.key"), made.content("client.crt")
    )
    request = infer_request(MODEL, plain_images(1))
    with (
        running_server(*FAKE, *own, credentials=credentials) as server,
        running_envoy([server.address], *own, *servers) as envoy,
    ):
        with grpc.secure_channel(envoy.address, credentials) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert logits(stub.ModelInfer(request, timeout=60)).shape == (1, 10)
        unknown = grpc.ssl_channel_credentials(made.content("ca.crt"))
        with grpc.secure_channel(envoy.address, unknown) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            call = stub.ModelInfer.future(request, timeout=60)
            assert call.code() is grpc.StatusCode.UNAVAILABLE


def test_answers_report_the_load_where_that_is_asked_for(tmp_path: Path) -> None:
    """As Envoy got it: gRPC's clients keep this trailer from programs."""
    port, metrics_port, admin_port = free_ports(3)
    log = tmp_path / "access.log"
    with running_server(*FAKE, "--load-reports", "orca") as reporting:
        options = EnvoyOptions(
            parse_servers(reporting.address),
            port=port,
            metrics_port=metrics_port,
            admin_port=admin_port,
            access_log=log,
        )
        text = configuration(options, "a test")
        text = text.replace("%BYTES_SENT%", f"%TRAILER({TRAILER})%")
        command = [str(envoy_program()), "--disable-hot-restart", "--log-level", "error"]
        command += ["--file-flush-interval-msec", "200", "--config-yaml", text]
        with subprocess.Popen(command) as process:
            try:
                proxy = Envoy(process, f"127.0.0.1:{port}", f"127.0.0.1:{metrics_port}", log)
                wait_until(lambda: proxy.is_ready() and proxy.healthy() == 1)
                with stub_of(proxy.address) as stub:
                    stub.ModelInfer(infer_request(MODEL, plain_images(1)), timeout=30)
                wait_until(proxy.lines)
            finally:
                process.kill()
    (line,) = proxy.lines()
    assert b"backlog_s" in base64.b64decode(line["sent_bytes"] + "==")
