"""MLServer's types and converters, as its own calls between servers use them: typed contents and raw ones.

python benchmarks/clients/mlserver_client.py ADDRESS
"""

from __future__ import annotations

import sys

import grpc
from cat import MODEL, check, pixels
from mlserver.codecs import NumpyCodec
from mlserver.grpc import dataplane_pb2
from mlserver.grpc.converters import (
    ModelInferRequestConverter,
    ModelInferResponseConverter,
    ModelMetadataResponseConverter,
)
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest


def main(address: str) -> None:
    """Metadata, both kinds of content there and back."""
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        print("ready", stub.ServerReady(dataplane_pb2.ServerReadyRequest(), timeout=30).ready)
        request = dataplane_pb2.ModelMetadataRequest(name=MODEL)
        metadata = ModelMetadataResponseConverter.to_types(stub.ModelMetadata(request, timeout=30))
        print(metadata.name, metadata.platform, metadata.versions)
        tensor = NumpyCodec.encode_input("images", pixels())
        tensor.parameters = None  # its content_type is for MLServer alone
        for raw in (False, True):
            message = ModelInferRequestConverter.from_types(
                InferenceRequest(id="a-1", inputs=[tensor]), MODEL, None, use_raw=raw
            )
            answer = ModelInferResponseConverter.to_types(stub.ModelInfer(message, timeout=30))
            logits = NumpyCodec.decode_output(answer.outputs[0])
            beside = message.inputs[0].HasField("contents")
            print("raw" if raw else "typed", f"contents={beside}", answer.id, check(logits))


if __name__ == "__main__":
    main(*sys.argv[1:])
