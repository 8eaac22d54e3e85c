"""A family as one model, with clients that know nothing of it: tritonclient, perf_analyzer, health checks."""

import os
import queue
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from benchmarks.perf_analyzer import requests_per_second
from tests.support.server_process import ServerProcess, plain_images, running_server
from tests.support.triton_inputs import tensor

MODELS = ("nin-orig", "nin-root-4", "nin-root-16")
AUTO = "nin-auto"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    arguments = ("--engine", "fake", "--device", "cpu", "--models", ",".join(MODELS))
    with running_server(*arguments, "--shared-memory", "system") as made:
        yield made


@pytest.fixture
def client(server: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as made:
        yield made


def test_it_is_listed_like_any_model(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready(AUTO)
    assert client.is_model_ready(AUTO, "1")
    metadata = client.get_model_metadata(AUTO)
    (taken,), (given,) = metadata.inputs, metadata.outputs
    assert (taken.name, taken.datatype, list(taken.shape)) == ("images", "UINT8", [-1, 3, 32, 32])
    assert (given.name, given.datatype, list(given.shape)) == ("logits", "FP32", [-1, 10])
    config = client.get_model_config(AUTO, as_json=True)["config"]
    assert (config["name"], config["max_batch_size"]) == (AUTO, 32)
    assert config["parameters"]["variants"]["string_value"].startswith("nin-orig 0.9")
    index = {model.name: model.state for model in client.get_model_repository_index().models}
    assert index[AUTO] == "READY"
    with pytest.raises(InferenceServerException, match="resnet50-auto"):
        client.get_model_metadata("resnet50-auto")


def test_health_knows_it_by_its_name(server: ServerProcess) -> None:
    stub = health_pb2_grpc.HealthStub(server.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=AUTO))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="resnet50-auto"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_an_answer_tells_which_variant_computed_it(client: triton.InferenceServerClient) -> None:
    wanted = {"accuracy_floor": 0.9, "variants": "nin-root-4,nin-root-16", "deadline_ms": 30_000}
    result = client.infer(AUTO, [tensor(3, rows=2)], request_id="r", parameters=wanted)
    assert result.as_numpy("logits").tolist() == [[float(3 + c) for c in range(10)]] * 2
    response = result.get_response()
    assert (response.model_name, response.id) == (AUTO, "r")
    told = response.parameters
    assert told["variant"].string_param == "nin-root-4"
    assert told["accuracy"].double_param == pytest.approx(0.902)
    assert told["predicted_ns"].int64_param > 0
    assert told["total_ns"].int64_param > 0
    single = client.infer("nin-orig", [tensor(3)]).get_response().parameters
    assert "variant" not in single


def test_statistics_are_of_the_family_and_of_what_computed(
    client: triton.InferenceServerClient,
) -> None:
    def counts(name: str) -> tuple[int, int]:
        (found,) = client.get_inference_statistics(name).model_stats
        return found.inference_count, found.execution_count

    before = {name: counts(name) for name in (AUTO, "nin-root-16", "nin-orig")}
    for _ in range(3):
        client.infer(AUTO, [tensor(1, rows=2)], parameters={"variants": "nin-root-16"})
    for name, grown in ((AUTO, (6, 3)), ("nin-root-16", (6, 3)), ("nin-orig", (0, 0))):
        after = counts(name)
        assert (after[0] - before[name][0], after[1] - before[name][1]) == grown
    names = [model.name for model in client.get_inference_statistics().model_stats]
    assert names == [*MODELS, AUTO]


def test_streams_work_with_it(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[triton.InferResult | None, InferenceServerException | None]]
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for value in range(5):
        client.async_stream_infer(AUTO, [tensor(value)], parameters={"accuracy_floor": 0.9})
    client.async_stream_infer(AUTO, [tensor(0)], parameters={"accuracy_floor": 0.99})
    found = [answers.get(timeout=30) for _ in range(6)]
    client.stop_stream()
    for value, (result, error) in enumerate(found[:5]):
        assert error is None
        assert result.as_numpy("logits")[0][0] == value
        assert result.get_response().parameters["accuracy"].double_param >= 0.9
    assert "expected at most 0.9026" in str(found[5][1])


async def test_asyncio_works_with_it(server: ServerProcess) -> None:
    async with triton_aio.InferenceServerClient(server.address) as client:
        made = triton_aio.InferInput("images", [1, 3, 32, 32], "UINT8")
        made.set_data_from_numpy(plain_images(1, 4))
        answer = await client.infer(AUTO, [made], parameters={"accuracy_floor": 0.9})
        assert answer.as_numpy("logits")[0][0] == 4


def test_shared_memory_works_with_it(client: triton.InferenceServerClient) -> None:
    content, logits = plain_images(1, 9).tobytes(), 10 * 4
    name = f"rootserve-test-{secrets.token_hex(8)}"
    path = Path("/dev/shm", name)
    path.write_bytes(content + bytes(logits))
    try:
        client.register_system_shared_memory("data", name, len(content) + logits)
        taken = triton.InferInput("images", [1, 3, 32, 32], "UINT8")
        taken.set_shared_memory("data", len(content))
        given = triton.InferRequestedOutput("logits")
        given.set_shared_memory("data", logits, len(content))
        answer = client.infer(AUTO, [taken], outputs=[given]).get_response()
        assert answer.parameters["variant"].string_param in MODELS
        written = np.frombuffer(path.read_bytes(), np.float32, 10, len(content))
        assert written.tolist() == [9.0 + c for c in range(10)]
    finally:
        client.unregister_system_shared_memory()
        path.unlink()


def test_pictures_work_with_it(client: triton.InferenceServerClient, cat_path: Path) -> None:
    taken = triton.InferInput("encoded", [1], "BYTES")
    taken.set_data_from_numpy(np.array([cat_path.read_bytes()], np.object_))
    own = client.infer("nin-root-4", [taken]).as_numpy("logits")
    answer = client.infer(AUTO, [taken], parameters={"variants": "nin-root-4"})
    assert answer.as_numpy("logits").tolist() == own.tolist()
    assert answer.get_response().parameters["decode_ns"].int64_param > 0


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            {"accuracy_floor": 0.95},
            "0.95 came, expected at most 0.9026, the highest that is served",
        ),
        ({"accuracy_floor": "good"}, "'good' came, expected a number from 0 to 1"),
        ({"variants": "nin-orig,nin-col-2"}, "'nin-col-2' came, which nin-auto does not choose"),
        ({"deadline_ms": -5}, "deadline_ms: -5 came, expected a number that is not negative"),
        ({"deadline_ms": 1_764_485_167_000}, "expected at most 86400000"),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(
    client: triton.InferenceServerClient, parameters: dict[str, object], words: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(AUTO, [tensor(0)], parameters=parameters)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert words in caught.value.message()


def test_a_deadline_that_has_passed_is_told_as_such(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(AUTO, [tensor(0)], parameters={"deadline_ms": 1e-9})
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert "the deadline had passed when the request came" in caught.value.message()


def test_the_examples_of_the_documentation_run(server: ServerProcess) -> None:
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "docs/auto.md").read_text(), re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        assert program.count("127.0.0.1:8001") == 1
        code = program.replace("127.0.0.1:8001", server.address)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert re.match(r"nin-(orig|root-4) 0\.90", done.stdout), done.stdout


def test_perf_analyzer_measures_it(server: ServerProcess) -> None:
    program = os.environ.get("PERF_ANALYZER") or shutil.which("perf_analyzer")
    if program is None:
        pytest.skip("no perf_analyzer: expected it in PATH, or its path in PERF_ANALYZER")
    options = ("--request-parameter", "accuracy_floor:0.9:double")
    assert requests_per_second(program, server.address, AUTO, 4, 3, options=options) > 0
