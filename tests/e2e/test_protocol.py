"""What clients of other servers count on, asked of a real server as they ask."""

import asyncio
import queue
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as oip

from tests.support.server_process import (
    ServerProcess,
    command_image,
    infer_request,
    logits,
    plain_images,
    running_server,
)
from tests.support.triton_inputs import tensor

MODEL = "nin-root-16"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server("--engine", "fake", "--models", MODEL) as made:
        yield made


@pytest.fixture
def client(server: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as made:
        yield made


def check(server: ServerProcess, service: str) -> int:
    health = health_pb2_grpc.HealthStub(server.channel)
    request = health_pb2.HealthCheckRequest(service=service)
    status: int = health.Check(request, timeout=10).status
    return status


# Health.


@pytest.mark.parametrize(
    "service",
    [
        "",
        MODEL,
        "inference.GRPCInferenceService",
        "rootserve.v1.AnalysisService",
        "rootserve.v1.CatalogService",
    ],
)
def test_health_knows_services_and_models(server: ServerProcess, service: str) -> None:
    assert check(server, service) == SERVING


def test_health_of_what_nobody_has_heard_of(server: ServerProcess) -> None:
    assert check(server, "nin-orig") == NOT_SERVING
    with pytest.raises(grpc.RpcError) as caught:
        check(server, "nobody.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_client_with_a_health_check_config_finds_the_server_alive(server: ServerProcess) -> None:
    config = (
        '{"healthCheckConfig": {"serviceName": "inference.GRPCInferenceService"},'
        ' "loadBalancingConfig": [{"round_robin": {}}]}'
    )
    with grpc.insecure_channel(
        server.address, [("grpc.service_config", config), ("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        call(infer_request(MODEL, plain_images(1)).SerializeToString(), timeout=10)


def test_whoever_watches_health_is_told_when_another_one_has_left() -> None:
    with running_server(
        "--engine", "fake", "--models", MODEL, "--model-control", "explicit"
    ) as own:
        health = health_pb2_grpc.HealthStub(own.channel)
        request = health_pb2.HealthCheckRequest(service=MODEL)
        leaves, stays = (health.Watch(request, timeout=60) for _ in range(2))
        assert next(leaves).status == next(stays).status == SERVING
        leaves.cancel()
        own.stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name=MODEL))
        assert next(stays).status == NOT_SERVING
        # With nothing served, the server is not ready, and says so in its refusals.
        assert not own.stub.ServerReady(oip.ServerReadyRequest()).ready
        assert check(own, "") == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            own.infer(MODEL, plain_images(1))
        assert caught.value.details() == f"known but not served is '{MODEL}'; no model is served"


# Metadata.


def test_an_unknown_model_is_not_ready_as_in_triton(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("nin-orig")
    assert not client.is_model_ready(MODEL, "2")


def test_the_extensions_are_those_that_are_served(client: triton.InferenceServerClient) -> None:
    always = ["classification", "model_configuration", "parameters"]
    always += ["schedule_policy", "statistics"]
    assert list(client.get_server_metadata().extensions) == always
    arguments = ("--model-control", "explicit", "--shared-memory", "system")
    with (
        running_server("--engine", "fake", "--models", MODEL, *arguments) as own,
        triton.InferenceServerClient(own.address) as other,
    ):
        assert sorted([*always, "model_repository", "system_shared_memory"]) == list(
            other.get_server_metadata().extensions
        )


def test_metadata_and_configuration_list_one_input_and_one_output(
    client: triton.InferenceServerClient,
) -> None:
    metadata = client.get_model_metadata(MODEL)
    config = client.get_model_config(MODEL).config
    for listed in (metadata.inputs, config.input):
        assert [one.name for one in listed] == ["images"]
    for listed in (metadata.outputs, config.output):
        assert [one.name for one in listed] == ["logits"]
    assert not config.input[0].optional


def test_all_that_is_listed_comes_when_no_output_is_named(
    client: triton.InferenceServerClient,
) -> None:
    assert [one.name for one in client.infer(MODEL, [tensor(1)]).get_response().outputs] == [
        "logits"
    ]
    arguments = ("--engine", "fake", "--models", MODEL, "--listed-tensors", "all")
    with running_server(*arguments) as own, triton.InferenceServerClient(own.address) as other:
        metadata = other.get_model_metadata(MODEL)
        assert [one.name for one in metadata.inputs] == ["images", "encoded"]
        answer = other.infer(MODEL, [tensor(1)])
        assert [one.name for one in answer.get_response().outputs] == ["logits", "probabilities"]
        assert answer.as_numpy("probabilities").sum() == pytest.approx(1)


def test_the_platform_is_one_that_the_protocol_knows() -> None:
    with (
        running_server("--engine", "openvino", "--precision", "fp32", "--models", MODEL) as own,
        triton.InferenceServerClient(own.address) as client,
    ):
        assert client.get_model_metadata(MODEL).platform == "openvino_ir"
        config = client.get_model_config(MODEL).config
        assert (config.platform, config.backend) == ("openvino_ir", "openvino")


# Requests.


def test_classes_come_as_triton_gives_them(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("logits", class_count=3)]
    answer = client.infer(MODEL, [tensor(5, rows=2)], outputs=outputs)
    best = [b"14.000000:9:truck", b"13.000000:8:ship", b"12.000000:7:horse"]
    assert answer.as_numpy("logits").tolist() == [best, best]
    # More than there are gives all.
    outputs = [triton.InferRequestedOutput("probabilities", class_count=99)]
    assert client.infer(MODEL, [tensor(5)], outputs=outputs).as_numpy("probabilities").shape == (
        1,
        10,
    )


def test_empty_contents_beside_raw_ones_are_none(server: ServerProcess) -> None:
    request = infer_request(MODEL, plain_images(1, 4))
    request.inputs[0].contents.SetInParent()
    assert logits(server.stub.ModelInfer(request))[0][0] == 4


def repeat_an_output(request: oip.ModelInferRequest) -> None:
    for _ in range(20_000):
        request.outputs.add(name="logits")


LONG = "é\x00" * 10_000


def long_shape(request: oip.ModelInferRequest) -> None:
    request.inputs[0].shape.extend([2**60] * 5000)


def many_inputs(request: oip.ModelInferRequest) -> None:
    for _ in range(5000):
        request.inputs.add(name="images")


def long_parameter(request: oip.ModelInferRequest) -> None:
    request.parameters["priority"].string_param = LONG


def region_of_a_long_name(request: oip.ModelInferRequest) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = LONG


def text(*path: str) -> Callable[[oip.ModelInferRequest], None]:
    def change(request: oip.ModelInferRequest) -> None:
        *way, last = path
        target = request
        for step in way:
            target = getattr(target, step)[0]
        setattr(target, last, LONG)

    change.__name__ = "_".join(path)
    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (repeat_an_output, "output 'logits' came twice, expected each one once"),
        (text("model_name"), "(20000 characters); served: nin-root-16"),
        (text("model_version"), "(20000 characters); it has version '1'"),
        (text("id"), "id: 20000 characters came, expected at most 4096"),
        (text("inputs", "name"), "(20000 characters) is unknown; expected 'images' or 'encoded'"),
        (text("inputs", "datatype"), "(20000 characters) came, expected UINT8"),
        (long_shape, "... (5004 in all)] came, expected [rows, 3, 32, 32]"),
        (many_inputs, "... (5001 in all) came, expected one"),
        (long_parameter, "(20000 characters) came, expected a number"),
        (region_of_a_long_name, "Unable to find shared memory region: 'é\\x00"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_wrong_is_quoted_in_short_in_calls_and_streams(
    server: ServerProcess, change: Callable[[oip.ModelInferRequest], None], words: str
) -> None:
    request = infer_request(MODEL, plain_images(1))
    change(request)
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.ModelInfer(request, timeout=10)
    expected = (
        grpc.StatusCode.NOT_FOUND
        if "served" in words or "version '1'" in words or "region" in words
        else grpc.StatusCode.INVALID_ARGUMENT
    )
    assert caught.value.code() is expected
    assert words in caught.value.details()
    assert len(caught.value.details()) < 1000
    (answer,) = server.stub.ModelStreamInfer(iter([request]), timeout=10)
    assert answer.error_message == f"[{expected.name}] {caught.value.details()}"
    assert answer.ByteSize() < 2**14


# Streams.


def test_a_stream_is_held_back_while_the_queue_is_full() -> None:
    arguments = ("--engine", "fake", "--models", MODEL, "--max-queue-rows", "64")
    with running_server(*arguments) as own:
        requests = [infer_request(MODEL, plain_images(32, number)) for number in range(100)]
        answers = list(own.stub.ModelStreamInfer(iter(requests), timeout=60))
        assert [answer.error_message for answer in answers] == [""] * 100
        firsts = [logits(answer.infer_response)[0][0] for answer in answers]
        assert firsts == list(range(100))


async def test_many_streams_share_a_small_queue() -> None:
    arguments = ("--engine", "fake", "--models", MODEL, "--max-queue-rows", "32")
    with running_server(*arguments) as own:
        async with grpc.aio.insecure_channel(own.address) as channel:
            stream = channel.stream_stream(
                "/inference.GRPCInferenceService/ModelStreamInfer",
                oip.ModelInferRequest.SerializeToString,
                oip.ModelStreamInferResponse.FromString,
            )

            async def ask(number: int) -> list[str]:
                requests = [infer_request(MODEL, plain_images(16, number))] * 10
                return [answer.error_message async for answer in stream(iter(requests), timeout=60)]

            outcomes = await asyncio.gather(*(ask(number) for number in range(20)))
        assert outcomes == 20 * [[""] * 10]


def test_a_deadline_is_kept_while_a_stream_is_held_back() -> None:
    arguments = ("--engine", "fake", "--models", MODEL, "--max-queue-rows", "32")
    with running_server(*arguments) as own:
        busy = infer_request(MODEL, command_image(b"sleep\x32"))
        full = infer_request(MODEL, plain_images(32))
        late = infer_request(MODEL, plain_images(32))
        late.parameters["deadline_ms"].int64_param = 50
        requests = iter([busy, full, full, late, full])
        answers = list(own.stub.ModelStreamInfer(requests, timeout=60))
        errors = [answer.error_message for answer in answers]
        assert errors[3].startswith("[DEADLINE_EXCEEDED] the deadline passed while")
        assert errors[:3] + errors[4:] == [""] * 4


def test_a_stream_that_asks_for_it_ends_with_the_status_of_its_first_error(
    server: ServerProcess,
) -> None:
    good = infer_request(MODEL, plain_images(1, 3))
    bad = infer_request("nobody", plain_images(1))
    call = server.stub.ModelStreamInfer(
        iter([good, bad, good]), timeout=10, metadata=[("triton_grpc_error", "true")]
    )
    assert logits(next(call).infer_response)[0][0] == 3
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "no model is called 'nobody'" in caught.value.details()


def test_every_answer_of_a_stream_says_that_it_is_the_last(server: ServerProcess) -> None:
    good = infer_request(MODEL, plain_images(1))
    bad = infer_request("nobody", plain_images(1), "an id")
    answers = list(server.stub.ModelStreamInfer(iter([good, bad]), timeout=10))
    assert [
        answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers
    ] == [True, True]
    assert answers[1].infer_response.id == "an id"


# Compression.


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_taken(
    client: triton.InferenceServerClient, algorithm: str
) -> None:
    answer = client.infer(MODEL, [tensor(6, rows=3)], compression_algorithm=algorithm)
    assert answer.as_numpy("logits")[:, 0].tolist() == [6, 6, 6]
    answers: queue.Queue[tuple[triton.InferResult, Exception | None]] = queue.Queue()
    client.start_stream(
        lambda result, error: answers.put((result, error)), compression_algorithm=algorithm
    )
    client.async_stream_infer(MODEL, [tensor(7)])
    result, error = answers.get(timeout=30)
    client.stop_stream()
    assert error is None
    assert result.as_numpy("logits")[0][0] == 7


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_compressed_message_keeps_to_the_limit(method: str) -> None:
    arguments = ("--engine", "fake", "--models", MODEL, "--max-message-mb", "4")
    with running_server(*arguments, "--max-queue-mb", "4") as own:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(own.address, options) as channel:
            call = channel.stream_stream(f"/inference.GRPCInferenceService/{method}")
            for _ in range(2):
                with pytest.raises(grpc.RpcError) as caught:
                    list(call(iter([bytes(2**27)]), compression=grpc.Compression.Gzip, timeout=60))
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "more than 4194304 bytes came" in caught.value.details()
        assert own.peak_kb() < 160 * 1024
        assert own.infer(MODEL, plain_images(1, 5))[0][0] == 5


def test_a_full_byte_budget_says_when_to_try_again() -> None:
    arguments = ("--engine", "fake", "--models", MODEL, "--max-queue-mb", "1")
    with running_server(*arguments, "--max-message-mb", "1") as own:
        busy = own.stub.ModelInfer.future(infer_request(MODEL, command_image(b"sleep\x32")))
        floats = np.zeros((32, 3, 32, 32), np.float32)
        calls = [own.stub.ModelInfer.future(infer_request(MODEL, floats)) for _ in range(8)]
        refused = [error for call in calls if (error := call.exception()) is not None]
        assert refused
        for error in refused:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            metadata = dict(error.trailing_metadata())
            status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
            assert status.details[0].Unpack(error_details_pb2.RetryInfo())
        busy.result()
