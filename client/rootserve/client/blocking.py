"""The client for threads: the same as `rootserve.client.inference.AsyncClient`, without asyncio."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2_grpc

from rootserve.client.address import DEFAULT_ADDRESS, Address, parse_address
from rootserve.client.catalog import Model, ServerInfo, read_model, read_server_info
from rootserve.client.channel import (
    CONNECT_TIMEOUT_S,
    connect_blocking,
    open_channel,
    translated_errors,
)
from rootserve.client.credentials import PLAINTEXT, Credentials
from rootserve.client.inference import DEFAULT_TIMEOUT_S, RETRY, find_model
from rootserve.client.retry import RetryPolicy, retried_blocking
from rootserve.client.wire import Answer, build_encoded_request, build_request, decode_response
from rootserve.v1 import catalog_pb2, catalog_pb2_grpc

T = TypeVar("T")


class Client:
    """One connection to one server, for `with`; any number of threads may share it:

        with Client("127.0.0.1:8001") as client:
            answer = client.infer("nin-orig", images)

    Every method raises `ServerError` when the server refuses or fails, and entering raises
    `Unreachable` when no server answers.

    Args:
        server: HOST:PORT.
        credentials: TLS and a token, if the server wants them.
        timeout_s: Deadline of each call, with all its tries.
        connect_timeout_s: How long to wait for the connection.
        retry: When a refused or failed call is made again.
    """  # noqa: D415 - the first line introduces the example

    def __init__(
        self,
        server: str | Address = DEFAULT_ADDRESS,
        *,
        credentials: Credentials = PLAINTEXT,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        retry: RetryPolicy = RETRY,
    ) -> None:
        self.address = server if isinstance(server, Address) else parse_address(server)
        self.timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._tls = credentials.tls
        self._retry = retry
        token = credentials.token
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.channel = open_channel(self.address, credentials)
        self._inference: Any = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self._catalog = catalog_pb2_grpc.CatalogServiceStub(self.channel)
        self._health: Any = health_pb2_grpc.HealthStub(self.channel)

    def __enter__(self) -> Self:
        try:
            connect_blocking(self.channel, self.address, self._connect_timeout_s, tls=self._tls)
        except BaseException:
            self.channel.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.channel.close()

    def models(self) -> list[Model]:
        """Every variant the server knows, loaded or not, in the order of its table."""
        response = self._call(self._catalog.ListModels, catalog_pb2.ListModelsRequest())
        return [read_model(message) for message in response.models]

    def model(self, name: str) -> Model:
        """The variant of this name.

        Raises:
            ServerError: NOT_FOUND when the server knows none of that name.
        """
        return find_model(self.models(), name)

    def server_info(self) -> ServerInfo:
        """The server's version, limits, machine and workers."""
        response = self._call(self._catalog.GetServerInfo, catalog_pb2.GetServerInfoRequest())
        return read_server_info(response)

    def health(self, model: str = "") -> str:
        """State of the server, or of one model: "SERVING", "NOT_SERVING" or another of gRPC's.

        Raises:
            ServerError: NOT_FOUND when the server knows no such model.
        """
        response = self._call(self._health.Check, health_pb2.HealthCheckRequest(service=model))
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    def infer(
        self,
        model: str,
        images: NDArray[np.uint8] | NDArray[np.float32],
        *,
        outputs: Sequence[str] = (),
        priority: int | None = None,
        deadline_s: float | None = None,
    ) -> Answer:
        """Run a model on images [N, 3, H, W] in one request; see `AsyncClient.infer`.

        Raises:
            InputError: The images have another shape or type.
            MalformedAnswer: The answer cannot be read.
        """
        request = build_request(
            model, images, outputs=outputs, priority=priority, deadline_s=deadline_s
        )
        return decode_response(self._call(self._inference.ModelInfer, request))

    def infer_encoded(
        self,
        model: str,
        pictures: Sequence[bytes],
        *,
        outputs: Sequence[str] = (),
        priority: int | None = None,
        deadline_s: float | None = None,
    ) -> Answer:
        """Run a model on JPEG and PNG files; see `AsyncClient.infer_encoded`.

        Raises:
            InputError: There are no pictures.
            MalformedAnswer: The answer cannot be read.
        """
        request = build_encoded_request(
            model, pictures, outputs=outputs, priority=priority, deadline_s=deadline_s
        )
        return decode_response(self._call(self._inference.ModelInfer, request))

    def _call(self, method: Callable[..., T], request: Any) -> T:
        def once(timeout_s: float) -> T:
            with translated_errors():
                return method(request, timeout=timeout_s, metadata=self._metadata)

        return retried_blocking(self._retry, self.timeout_s, once)
