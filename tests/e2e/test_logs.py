"""What a real server logs as JSON, and how it shuts down with a grace."""

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from tests.support.server_process import (
    PATIENCE_S,
    ServerProcess,
    command_image,
    infer_request,
    logits,
    plain_images,
    running_server,
    wait_until,
)

MODEL = "nin-root-16"
FAKE = ("--models", MODEL, "--engine", "fake", "--device", "cpu")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server(*FAKE, "--log-format", "json") as started:
        yield started


def lines(log: str) -> list[dict[str, Any]]:
    """Every line of ``log`` that is complete; each must be a JSON object."""
    content = [json.loads(line) for line in log.split("\n")[:-1]]
    for line in content:
        assert {"time", "level", "logger", "message"} <= set(line)
        assert datetime.fromisoformat(line["time"]).utcoffset() is not None
    return content


def refusals(server: ServerProcess, reason: str) -> list[dict[str, Any]]:
    return [line for line in lines(server.log()) if line.get("reason") == reason]


async def refused(address: str, requests: list[Any]) -> set[grpc.StatusCode]:
    """Send ``requests`` at once; gives the codes they were refused with."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer(request, timeout=60) for request in requests]
        return {await call.code() for call in calls}


async def test_a_burst_of_bad_requests_gives_a_few_lines_that_count_them_all(
    server: ServerProcess,
) -> None:
    too_many = plain_images(33)
    requests = [infer_request(MODEL, too_many, f"bad-{number}") for number in range(200)]
    began_s = time.monotonic()
    assert await refused(server.address, requests) == {grpc.StatusCode.INVALID_ARGUMENT}
    wait_until(lambda: sum(line["count"] for line in refusals(server, "invalid_request")) >= 200)
    told = refusals(server, "invalid_request")
    assert sum(line["count"] for line in told) == 200
    assert 2 <= len(told) <= 2 + time.monotonic() - began_s
    for line in told:
        assert line["model"] == MODEL
        assert line["level"] == "info"
        assert line["request_id"].startswith("bad-")


async def test_a_line_tells_the_request_id_but_nothing_else_that_a_caller_made_up(
    server: ServerProcess,
) -> None:
    request = infer_request("made-up-model", plain_images(1), 'id-7 "\n{}')
    assert await refused(server.address, [request]) == {grpc.StatusCode.NOT_FOUND}
    wait_until(lambda: refusals(server, "unknown_model"))
    (line,) = refusals(server, "unknown_model")
    assert line["request_id"] == 'id-7 "?{}'
    assert "model" not in line
    assert "made-up-model" not in server.log()


def test_the_death_of_a_worker_has_worker_pid_and_status(server: ServerProcess) -> None:
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: "ended with status -9" in server.log())
    server.wait_ready()
    server.infer(MODEL, plain_images(1))
    log = lines(server.log())
    (ended,) = [line for line in log if "ended with status" in line["message"]]
    assert (ended["worker"], ended["pid"], ended["status"]) == ("cpu-0", worker, -9)
    assert ended["level"] == "error"
    started = [line["pid"] for line in log if " started on cpu, pid " in line["message"]]
    assert started == [worker, *server.worker_pids()]


def test_every_line_until_the_end_is_a_json_object() -> None:
    process = ServerProcess(*FAKE, "--log-format", "json").wait_ready()
    for image in (command_image(b"raise"), plain_images(33), plain_images(33), plain_images(33)):
        with pytest.raises(grpc.RpcError):
            process.infer(MODEL, image)
    log = lines(process.end(signal.SIGTERM))
    assert process.process.returncode == 0
    counts = {
        reason: sum(line["count"] for line in log if line.get("reason") == reason)
        for reason in ("model_failure", "invalid_request")
    }
    at_the_end = sum(line["count"] for line in log if "by_class" in line)
    assert counts["model_failure"] == 1
    assert counts["invalid_request"] + at_the_end == 3
    assert log[-1]["message"] == "stopped"


def health_says(server: ServerProcess, service: str) -> Any:
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(server.channel).Check(request).status


def test_a_refusal_tells_the_worker_it_failed_on(server: ServerProcess) -> None:
    with pytest.raises(grpc.RpcError):
        server.infer(MODEL, command_image(b"raise"))
    (line,) = refusals(server, "model_failure")
    assert (line["worker"], line["model"]) == ("cpu-0", MODEL)


def test_in_the_grace_requests_are_served_while_health_says_no() -> None:
    with running_server(*FAKE, "--grace-s", "4", "--log-format", "json") as server:
        serving = health_pb2.HealthCheckResponse.SERVING
        assert health_says(server, "") == health_says(server, MODEL) == serving
        server.process.send_signal(signal.SIGTERM)
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        wait_until(lambda: health_says(server, "") == not_serving)
        wait_until(lambda: health_says(server, MODEL) == not_serving)
        assert not server.stub.ServerReady(oip.ServerReadyRequest()).ready
        assert not server.stub.ModelReady(oip.ModelReadyRequest(name=MODEL)).ready
        assert server.infer(MODEL, plain_images(1, 7))[0][0] == 7.0
        assert "finishing what was admitted" not in server.log()

        # Admitted in the grace, and not done before its end.
        naps = np.concatenate([command_image(b"sleep\xff")] * 3)
        slow = server.stub.ModelInfer.future(infer_request(MODEL, naps), timeout=60)
        wait_until(lambda: "finishing what was admitted" in server.log())
        with pytest.raises(grpc.RpcError) as caught:
            server.infer(MODEL, plain_images(1))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in caught.value.details()
        assert logits(slow.result()).shape == (3, 10)
        assert server.process.wait(PATIENCE_S) == 0
        log = lines(server.log())
        assert [line["level"] for line in log if line.get("reason") == "draining"] == ["warning"]


def test_a_second_signal_ends_the_grace_at_once() -> None:
    process = ServerProcess(*FAKE, "--grace-s", "600")
    process.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "still served for 600 s" in process.log())
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(10) == 1
    process.end(signal.SIGKILL)


def test_requests_are_logged_one_by_one_where_that_is_asked_for() -> None:
    options = ("--log-format", "json", "--access-log", "on", "--slow-request-ms", "150")
    with running_server(*FAKE, *options) as server:
        slow = infer_request(MODEL, command_image(b"sleep" + bytes([20])), "slow one")
        server.stub.ModelInfer(slow, timeout=60)
        server.infer(MODEL, plain_images(2))
        with pytest.raises(grpc.RpcError):
            server.infer("nope", plain_images(1))
        log = "rootserve.server.observers.access_log"
        wait_until(lambda: server.log().count(log) >= 3)
        first, second, third = (line for line in lines(server.log()) if line["logger"] == log)
        assert (first["level"], first["request_id"]) == ("warning", "slow one")
        assert first["total_ms"] >= first["compute_ms"] >= 150
        assert (second["level"], second["rows"], second["worker"]) == ("info", 2, "cpu-0")
        assert second["peer"].startswith("ipv4:127.0.0.1:")
        assert (third["code"], third["reason"]) == ("NOT_FOUND", "unknown_model")
