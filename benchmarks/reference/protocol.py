"""The part of the protocol that clients want to know before they ask for an answer."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from benchmarks.reference.same_engine import LARGEST_BATCH


def logits_response(request: Any, logits: Any) -> Any:
    """The answer to ``request``: float32 ``logits`` [rows, classes]."""
    response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
    response.outputs.add(name="logits", datatype="FP32", shape=logits.shape)
    response.raw_output_contents.append(logits.tobytes())
    return response


async def serve_until_killed(service: service_pb2_grpc.GRPCInferenceServiceServicer) -> NoReturn:
    """Serve on grpc.aio alone, and say where."""
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening grpc=127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()
    raise AssertionError("it is killed")


class Described(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A service of one model: 32x32 images to 10 logits."""

    def ServerReady(self, request: Any, context: Any = None) -> Any:  # noqa: N802
        """Whether it serves."""
        return service_pb2.ServerReadyResponse(ready=True)

    def ServerMetadata(self, request: Any, context: Any = None) -> Any:  # noqa: N802
        """No extensions."""
        return service_pb2.ServerMetadataResponse(name="reference", version="1")

    def ModelReady(self, request: Any, context: Any = None) -> Any:  # noqa: N802
        """Whether it serves the model."""
        return service_pb2.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request: Any, context: Any = None) -> Any:  # noqa: N802
        """Its inputs and outputs."""
        response = service_pb2.ModelMetadataResponse(name=request.name, versions=["1"])
        response.inputs.add(name="images", datatype="UINT8", shape=(-1, 3, 32, 32))
        response.outputs.add(name="logits", datatype="FP32", shape=(-1, 10))
        return response

    def ModelConfig(self, request: Any, context: Any = None) -> Any:  # noqa: N802
        """The same as Triton tells it."""
        config = model_config_pb2.ModelConfig(name=request.name, max_batch_size=LARGEST_BATCH)
        kinds = model_config_pb2.DataType.Value
        config.input.add(name="images", data_type=kinds("TYPE_UINT8"), dims=(3, 32, 32))
        config.output.add(name="logits", data_type=kinds("TYPE_FP32"), dims=(10,))
        return service_pb2.ModelConfigResponse(config=config)
