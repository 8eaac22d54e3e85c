"""Unmodified tritonclient: sync, aio, streaming and the metadata calls."""

import queue
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.support.server_process import ServerProcess, running_server
from tests.support.triton_inputs import tensor

MODELS = "nin-orig,nin-root-4"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server("--engine", "fake", "--models", MODELS) as made:
        yield made


@pytest.fixture
def client(server: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as made:
        yield made


def expected(value: int, rows: int = 1) -> list[list[float]]:
    return [[float(value + c) for c in range(10)]] * rows


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("nin-orig")
    assert client.is_model_ready("nin-orig", "1")
    assert client.get_server_metadata().name == "rootserve"
    metadata = client.get_model_metadata("nin-root-4")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
        ("images", "UINT8", [-1, 3, 32, 32]),
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs] == [
        ("logits", "FP32", [-1, 10]),
    ]


def test_the_configuration_is_what_perf_analyzer_reads(
    client: triton.InferenceServerClient,
) -> None:
    config = client.get_model_config("nin-root-4", as_json=True)["config"]
    assert config["max_batch_size"] == 32
    assert config["input"][0]["dims"] == ["3", "32", "32"]
    assert "dynamic_batching" in config
    assert config["parameters"]["params"]["string_value"] == "455498"
    assert config["parameters"]["macs"]["string_value"] == str(123_397_514 - 1_418)


def test_an_answer_tells_its_timeline(client: triton.InferenceServerClient) -> None:
    result = client.infer("nin-orig", [tensor(3, rows=2)], request_id="r-1")
    assert result.as_numpy("logits").tolist() == expected(3, rows=2)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("r-1", "nin-orig", "1")
    p = response.parameters
    parts = [p[f"{name}_ns"].int64_param for name in ("queue", "batch_wait", "compute")]
    assert all(part > 0 for part in parts)
    assert sum(parts) <= p["total_ns"].int64_param
    assert p["batch_rows"].int64_param == 2
    assert (p["worker"].string_param, p["engine"].string_param) == ("cpu-0", "fake")


def test_probabilities_on_request_and_in_the_order_asked(
    client: triton.InferenceServerClient,
) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("probabilities", "logits")]
    result = client.infer("nin-orig", [tensor(0)], outputs=outputs)
    logits = result.as_numpy("logits")[0]
    powers = np.exp(logits - logits.max())
    np.testing.assert_allclose(
        result.as_numpy("probabilities")[0], powers / powers.sum(), rtol=1e-5
    )


def test_floats_in_0_to_1_are_taken(client: triton.InferenceServerClient) -> None:
    made = triton.InferInput("images", [1, 3, 32, 32], "FP32")
    made.set_data_from_numpy(np.full((1, 3, 32, 32), 0.2, np.float32))
    assert client.infer("nin-orig", [made]).as_numpy("logits")[0][0] == pytest.approx(51.0)


def test_statistics_rise_and_their_counts_agree(client: triton.InferenceServerClient) -> None:
    def read() -> dict[str, object]:
        return client.get_inference_statistics("nin-root-4").model_stats[0]

    before = read()
    for _ in range(3):
        client.infer("nin-root-4", [tensor(1, rows=2)])
    after = read()
    assert after.version == "1"
    assert after.inference_count - before.inference_count == 6
    assert after.execution_count - before.execution_count == 3
    stats = after.inference_stats
    assert stats.queue.count - before.inference_stats.queue.count == 3
    assert stats.compute_input.count == stats.compute_infer.count == stats.compute_output.count
    assert stats.success.ns >= stats.compute_infer.ns > 0
    assert sum(batch.compute_infer.count for batch in after.batch_stats) == after.execution_count
    names = [model.name for model in client.get_inference_statistics().model_stats]
    assert names == [*MODELS.split(","), "nin-auto"]


def test_the_repository_index_has_every_variant(client: triton.InferenceServerClient) -> None:
    index = {model.name: model.state for model in client.get_model_repository_index().models}
    assert len(index) == 23
    ready = {name for name, state in index.items() if state == "READY"}
    assert ready == {*MODELS.split(","), "nin-auto"}


def test_async_calls_of_the_sync_client(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[triton.InferResult, Exception | None]] = queue.Queue()
    for value in range(20):
        client.async_infer(
            "nin-orig", [tensor(value)], lambda result, error: answers.put((result, error))
        )
    values = set()
    for _ in range(20):
        result, error = answers.get(timeout=30)
        assert error is None
        values.add(result.as_numpy("logits")[0][0])
    assert values == set(range(20))


async def test_the_aio_client(server: ServerProcess) -> None:
    async with triton_aio.InferenceServerClient(server.address) as client:
        assert await client.is_server_ready()
        result = await client.infer("nin-root-4", [tensor(9)])
        assert result.as_numpy("logits").tolist() == expected(9)
        with pytest.raises(InferenceServerException, match="NOT_FOUND"):
            await client.infer("nope", [tensor(9)])


def test_a_stream_answers_in_order_and_goes_on_after_an_error(
    client: triton.InferenceServerClient,
) -> None:
    answers: queue.Queue[tuple[triton.InferResult, Exception | None]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for value in range(50):
        model = "nope" if value == 20 else "nin-orig"
        client.async_stream_infer(
            model, [tensor(value)], request_id=str(value), enable_empty_final_response=value == 7
        )
    got = [answers.get(timeout=30) for _ in range(50)]
    client.stop_stream()
    for value, (result, error) in enumerate(got):
        if value == 20:
            assert "[NOT_FOUND] no model is called 'nope'" in str(error)
        else:
            assert error is None
            assert result.get_response().id == str(value)
            assert result.as_numpy("logits").tolist() == expected(value)
            assert result.get_response().parameters["triton_final_response"].bool_param


async def test_an_aio_stream(server: ServerProcess) -> None:
    async def requests():
        for value in range(10):
            yield {
                "model_name": "nin-orig",
                "inputs": [tensor(value)],
                "request_id": str(value),
            }

    async with triton_aio.InferenceServerClient(server.address) as client:
        values = []
        async for result, error in client.stream_infer(requests()):
            assert error is None
            values.append(result.as_numpy("logits")[0][0])
    assert values == list(range(10))
