"""Bad requests over the wire: a clear code and message each, and the server lives."""

import urllib.request
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2 as oip

from rootserve.v1 import analysis_pb2, analysis_pb2_grpc
from tests.support.server_process import (
    ServerProcess,
    infer_request,
    plain_images,
    running_server,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server("--engine", "fake", "--max-message-mb", "1") as started:
        yield started


@pytest.fixture
def model(server: ServerProcess) -> str:
    return server.stub.RepositoryIndex(oip.RepositoryIndexRequest(ready=True)).models[0].name


def unknown_model(request: oip.ModelInferRequest) -> None:
    request.model_name = "nin-root-3"


def unknown_tensor(request: oip.ModelInferRequest) -> None:
    request.inputs[0].name = "pixels"


def wrong_datatype(request: oip.ModelInferRequest) -> None:
    request.inputs[0].datatype = "FP16"


def wrong_shape(request: oip.ModelInferRequest) -> None:
    request.inputs[0].shape[:] = [1, 32, 32, 3]


def truncated(request: oip.ModelInferRequest) -> None:
    request.raw_input_contents[0] = request.raw_input_contents[0][:100]


def zero_rows(request: oip.ModelInferRequest) -> None:
    request.inputs[0].shape[0] = 0
    request.raw_input_contents[0] = b""


def too_many_rows(request: oip.ModelInferRequest) -> None:
    request.inputs[0].shape[0] = 33
    request.raw_input_contents[0] = bytes(33 * 3072)


def typed_beside_raw(request: oip.ModelInferRequest) -> None:
    request.inputs[0].contents.uint_contents.extend([0] * 3072)


def nan(request: oip.ModelInferRequest) -> None:
    request.inputs[0].datatype = "FP32"
    request.raw_input_contents[0] = np.full(3072, np.nan, np.float32).tobytes()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (unknown_model, grpc.StatusCode.NOT_FOUND, "no model is called 'nin-root-3'; served: nin-"),
        (unknown_tensor, INVALID, "input 'pixels' is unknown; expected 'images'"),
        (wrong_datatype, INVALID, "tensor images: datatype 'FP16' came, expected UINT8"),
        (wrong_shape, INVALID, "shape [1, 32, 32, 3] came, expected [rows, 3, 32, 32]"),
        (truncated, INVALID, "100 bytes came, expected 3072 for UINT8 [1, 3, 32, 32]"),
        (zero_rows, INVALID, "tensor images: 0 rows came, expected 1 to 32"),
        (too_many_rows, INVALID, "tensor images: 33 rows came, expected 1 to 32"),
        (typed_beside_raw, INVALID, "both raw_input_contents and typed contents came"),
        (nan, INVALID, "3072 values are NaN, expected 0..1 for FP32"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_bad_request_is_refused_and_the_server_lives(
    server: ServerProcess,
    model: str,
    change: Callable[[oip.ModelInferRequest], None],
    code: grpc.StatusCode,
    words: str,
) -> None:
    request = infer_request(model, plain_images(1))
    change(request)
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.ModelInfer(request, timeout=10)
    assert caught.value.code() is code
    assert words in caught.value.details()
    assert server.infer(model, plain_images(1, 5))[0][0] == 5.0


def test_a_message_over_the_limit_is_refused(server: ServerProcess, model: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.infer(model, plain_images(1000))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.infer(model, plain_images(1, 5))[0][0] == 5.0


@pytest.mark.parametrize(
    "method",
    [
        "inference.GRPCInferenceService/ModelInfer",
        "inference.GRPCInferenceService/ModelReady",
        "rootserve.v1.CatalogService/ListModels",
        "grpc.health.v1.Health/Check",
    ],
)
def test_bytes_that_are_no_message_are_refused(
    server: ServerProcess, model: str, method: str
) -> None:
    call = server.channel.unary_unary(f"/{method}")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff" * 100, timeout=10)
    assert caught.value.code() is INVALID
    assert "no message of the type" in caught.value.details()
    assert server.infer(model, plain_images(1, 5))[0][0] == 5.0


@pytest.mark.parametrize(
    "method",
    [
        "inference.GRPCInferenceService/ModelStreamInfer",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "grpc.health.v1.Health/Watch",
    ],
)
def test_bytes_that_are_no_message_end_a_stream(
    server: ServerProcess, model: str, method: str
) -> None:
    call = server.channel.stream_stream(f"/{method}")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([b"\xff" * 100]), timeout=10))
    assert caught.value.code() is INVALID
    assert server.infer(model, plain_images(1, 5))[0][0] == 5.0


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("ModelMetadata", oip.ModelMetadataRequest(name="nope")),
        ("ModelConfig", oip.ModelConfigRequest(name="nope")),
        ("ModelStatistics", oip.ModelStatisticsRequest(name="nope")),
    ],
)
def test_every_call_about_a_model_names_the_unknown_one(
    server: ServerProcess, method: str, request_message: object
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        getattr(server.stub, method)(request_message, timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "'nope'" in caught.value.details()


def test_refusals_are_counted_by_reason(server: ServerProcess, model: str) -> None:
    with pytest.raises(grpc.RpcError):
        server.infer(model, plain_images(33))
    statistics = server.stub.ModelStatistics(oip.ModelStatisticsRequest(name=model))
    assert statistics.model_stats[0].inference_stats.fail.count >= 1


def refusals(server: ServerProcess) -> dict[tuple[str, str], float]:
    """How many were counted, by model and reason."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
        families = text_string_to_metric_families(page.read().decode())
        return {
            (sample.labels["model"], sample.labels["reason"]): sample.value
            for family in families
            for sample in family.samples
            if sample.name == "rootserve_refusals_total"
        }


def test_every_refusal_is_counted_once_whichever_method_it_is_of() -> None:
    with running_server("--engine", "fake", "--models", "nin-orig") as server:
        before = refusals(server)
        analysis = analysis_pb2_grpc.AnalysisServiceStub(server.channel)
        infer = "/inference.GRPCInferenceService/ModelInfer"
        calls: tuple[Callable[[], object], ...] = (
            lambda: server.infer("nin-orig", plain_images(33)),
            lambda: server.infer("nope", plain_images(1)),
            lambda: server.channel.unary_unary(infer)(b"\xff", timeout=10),
            lambda: server.stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest()),
            lambda: server.stub.SystemSharedMemoryRegister(oip.SystemSharedMemoryRegisterRequest()),
            lambda: list(analysis.Analyze(iter([analysis_pb2.AnalyzeRequest()]))),
            lambda: analysis.GetProfile(analysis_pb2.GetProfileRequest(model="nope")),
            lambda: server.channel.unary_unary(infer.replace("ModelInfer", "LogSettings"))(b""),
        )
        for call in calls:
            with pytest.raises(grpc.RpcError):
                call()
        counted = {key: value - before.get(key, 0) for key, value in refusals(server).items()}
        assert {key: value for key, value in counted.items() if value} == {
            ("nin-orig", "invalid_request"): 1,
            ("", "unknown_model"): 2,
            ("", "invalid_request"): 2,  # the bytes that are no message, and the analysis
            ("", "control_off"): 1,
            ("", "shared_memory_off"): 1,
            ("", "not_implemented"): 1,
        }
