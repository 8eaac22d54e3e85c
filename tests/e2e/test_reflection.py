"""Reflection as grpcurl and its like ask for it, in both versions of its protocol."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.support.server_process import ServerProcess, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server("--engine", "fake", "--models", "nin-root-16") as made:
        yield made


def reflect(
    server: ServerProcess, version: str, **question: str
) -> reflection_pb2.ServerReflectionResponse:
    call = server.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = call(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=10)
    return answer


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_both_versions_of_reflection_answer(server: ServerProcess, version: str) -> None:
    answer = reflect(server, version, list_services="")
    names = [service.name for service in answer.list_services_response.service]
    assert "inference.GRPCInferenceService" in names


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("member", ["", ".ModelInfer"])
def test_reflection_tells_the_file_of_a_service_and_of_a_method(
    server: ServerProcess, version: str, member: str
) -> None:
    symbol = f"inference.GRPCInferenceService{member}"
    answer = reflect(server, version, file_containing_symbol=symbol)
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(content)
        for content in answer.file_descriptor_response.file_descriptor_proto
    ]
    assert "GRPCInferenceService" in [one.name for file in files for one in file.service]


@pytest.mark.parametrize(
    "symbol", ["inference.GRPCInferenceService.Nothing", "inference.Nothing.ModelInfer", "Nothing"]
)
def test_reflection_of_what_there_is_not(server: ServerProcess, symbol: str) -> None:
    answer = reflect(server, "v1", file_containing_symbol=symbol)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
