"""Reflection, in both versions of its protocol: what grpcurl and the like learn the services from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc


class _Pool:
    """The default pool, which also finds the file of a method: the protocol wants it, protobuf does not."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - protobuf's name
        """The file that declares ``symbol``.

        Raises:
            KeyError: if there is none.
        """
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            described = self._pool.FindServiceByName(service)
            return described.methods_by_name[method].containing_service.file


def add_reflection(server: Any, services: Sequence[str]) -> None:
    """Tell callers of ``services``, and of reflection itself."""
    servicer = reflection.aio.ReflectionServicer((*services, reflection.SERVICE_NAME), _Pool())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    # Version 1 has the same messages under another name.
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(
        "grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": method}
    )
    server.add_generic_rpc_handlers([handler])
