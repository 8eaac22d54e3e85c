"""The client for asyncio: asks a server for answers, its models and its state."""

import json
from collections.abc import Awaitable, Callable, Sequence
from difflib import get_close_matches
from typing import Any, Self, TypeVar

import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from rootserve.client.address import DEFAULT_ADDRESS, Address, parse_address
from rootserve.client.catalog import Model, ServerInfo, read_model, read_server_info
from rootserve.client.channel import CONNECT_TIMEOUT_S, connect, open_aio_channel, translated_errors
from rootserve.client.credentials import PLAINTEXT, Credentials
from rootserve.client.defaults import LOAD_TIMEOUT_S, TIMEOUT_S
from rootserve.client.errors import ServerError
from rootserve.client.explain import (
    Explanation,
    LatencyTable,
    read_explanation,
    read_latency_table,
)
from rootserve.client.retry import RetryPolicy, retried
from rootserve.client.wire import Answer, build_encoded_request, build_request, decode_response
from rootserve.v1 import catalog_pb2, catalog_pb2_grpc, explain_pb2, explain_pb2_grpc

RETRY = RetryPolicy()

T = TypeVar("T")


class AsyncClient:
    """One connection to one server, for `async with`:

        async with AsyncClient("127.0.0.1:8001") as client:
            models = await client.models()
            answer = await client.infer("nin-orig", images)

    Any number of calls may be under way at once. Every method raises `ServerError` when the
    server refuses or fails, and entering raises `Unreachable` when no server answers.

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
        timeout_s: float = TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        retry: RetryPolicy = RETRY,
    ) -> None:
        self.address = server if isinstance(server, Address) else parse_address(server)
        self.timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._credentials = credentials
        self._retry = retry

    async def __aenter__(self) -> Self:
        # Here and not before: a channel belongs to the event loop in which it is opened.
        self.channel = open_aio_channel(self.address, self._credentials)
        self._inference: Any = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self._catalog = catalog_pb2_grpc.CatalogServiceStub(self.channel)
        self._explain = explain_pb2_grpc.ExplainServiceStub(self.channel)
        self._health: Any = health_pb2_grpc.HealthStub(self.channel)
        try:
            await connect(
                self.channel, self.address, self._connect_timeout_s, tls=self._credentials.tls
            )
        except BaseException:
            await self.channel.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def models(self) -> list[Model]:
        """Every variant the server knows, loaded or not, in the order of its table."""
        response = await self._call(self._catalog.ListModels, catalog_pb2.ListModelsRequest())
        return [read_model(message) for message in response.models]

    async def families(self) -> list[Model]:
        """The families that the server serves as one model, such as "nin-auto"."""
        response = await self._call(self._catalog.ListModels, catalog_pb2.ListModelsRequest())
        return [read_model(message) for message in response.families]

    async def model(self, name: str) -> Model:
        """The variant of this name, or the family.

        Raises:
            ServerError: NOT_FOUND when the server knows none of that name.
        """
        response = await self._call(self._catalog.ListModels, catalog_pb2.ListModelsRequest())
        messages = (*response.models, *response.families)
        return find_model([read_model(message) for message in messages], name)

    async def latency_table(self) -> LatencyTable:
        """How long batches take there, by kind of worker, variant, rows and form of the input."""
        request = explain_pb2.GetLatencyTableRequest()
        return read_latency_table(await self._call(self._explain.GetLatencyTable, request))

    async def explain(
        self, request_id: str = "", *, model: str = "", outcome: str = "", last: int = 1
    ) -> list[Explanation]:
        """Why requests went as they did that ended lately, newest first.

        Args:
            request_id: Those with this id.
            model: Those for this model.
            outcome: Those that ended so: "ok", "refused", or a reason such as "deadline_infeasible".
            last: At most so many.

        Raises:
            ServerError: UNIMPLEMENTED when the server keeps none, NOT_FOUND for an id that it does not keep.
        """
        request = explain_pb2.ExplainRequest(
            request_id=request_id, model=model, outcome=outcome, last=last
        )
        response = await self._call(self._explain.Explain, request)
        return [read_explanation(message) for message in response.explanations]

    async def server_info(self) -> ServerInfo:
        """The server's version, limits, machine and workers."""
        response = await self._call(self._catalog.GetServerInfo, catalog_pb2.GetServerInfoRequest())
        return read_server_info(response)

    async def health(self, model: str = "") -> str:
        """State of the server, or of one model: "SERVING", "NOT_SERVING" or another of gRPC's.

        Raises:
            ServerError: NOT_FOUND when the server knows no such model.
        """
        request = health_pb2.HealthCheckRequest(service=model)
        response = await self._call(self._health.Check, request)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    async def infer(  # noqa: PLR0913 - what a request may say
        self,
        model: str,
        images: NDArray[np.uint8] | NDArray[np.float32],
        *,
        outputs: Sequence[str] = (),
        priority: int | None = None,
        deadline_s: float | None = None,
        accuracy_floor: float | None = None,
        variants: Sequence[str] = (),
        request_id: str = "",
    ) -> Answer:
        """Run a model on images [N, 3, H, W] in one request.

        Args:
            model: Name of the model.
            images: RGB, uint8 0..255 or float32 0..1.
            outputs: Names of the outputs wanted; `logits` when empty.
            priority: 1 is the highest; None leaves it to the server.
            deadline_s: Time the server has for it.
            accuracy_floor: The least accuracy, 0..1, of the variant that computes it.
            variants: Of a family, such as "nin-auto", the variants that may compute it; all when empty.
            request_id: What the server calls it in logs, traces and explanations.

        Raises:
            InputError: The images have another shape or type.
            ServerError: RESOURCE_EXHAUSTED with a `promise` when a family cannot keep the deadline.
            MalformedAnswer: The answer cannot be read.
        """
        request = build_request(
            model,
            images,
            outputs=outputs,
            priority=priority,
            deadline_s=deadline_s,
            accuracy_floor=accuracy_floor,
            variants=variants,
            request_id=request_id,
        )
        return decode_response(await self._call(self._inference.ModelInfer, request))

    async def infer_encoded(  # noqa: PLR0913 - as above
        self,
        model: str,
        pictures: Sequence[bytes],
        *,
        outputs: Sequence[str] = (),
        priority: int | None = None,
        deadline_s: float | None = None,
        accuracy_floor: float | None = None,
        variants: Sequence[str] = (),
        request_id: str = "",
    ) -> Answer:
        """Run a model on JPEG and PNG files in one request; the server decodes, resizes and crops them.

        Args:
            model: Name of the model.
            pictures: What is in each file.
            outputs: As for `infer`.
            priority: As for `infer`.
            deadline_s: As for `infer`.
            accuracy_floor: As for `infer`.
            variants: As for `infer`.
            request_id: As for `infer`.

        Raises:
            InputError: There are no pictures.
            ServerError: INVALID_ARGUMENT for a picture that is damaged or too large; names its row.
            MalformedAnswer: The answer cannot be read.
        """
        request = build_encoded_request(
            model,
            pictures,
            outputs=outputs,
            priority=priority,
            deadline_s=deadline_s,
            accuracy_floor=accuracy_floor,
            variants=variants,
            request_id=request_id,
        )
        return decode_response(await self._call(self._inference.ModelInfer, request))

    async def load_model(
        self, model: str, *, version: int | None = None, timeout_s: float = LOAD_TIMEOUT_S
    ) -> None:
        """Have a model served with the weights that the server's folder has now.

        Args:
            model: Name of the model.
            version: Which one; the one that the server chooses, as a rule the latest, if None.
            timeout_s: How long to wait for it. Once begun it is carried out all the same.

        Raises:
            ServerError: FAILED_PRECONDITION when it cannot be loaded, after which all is as it was.
        """
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        if version is not None:
            policy = {"version_policy": {"specific": {"versions": [version]}}}
            request.parameters["config"].string_param = json.dumps(policy)
        await self._once(self._inference.RepositoryModelLoad, request, timeout_s)

    async def roll_back_model(self, model: str, *, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """Have a model served with what was served before its last load.

        Args:
            model: Name of the model.
            timeout_s: As for `load_model`.

        Raises:
            ServerError: As for `load_model`.
        """
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        request.parameters["rollback"].bool_param = True
        await self._once(self._inference.RepositoryModelLoad, request, timeout_s)

    async def unload_model(self, model: str, *, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """Have a model served no more, once what waits for it is answered."""
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        await self._once(self._inference.RepositoryModelUnload, request, timeout_s)

    async def _once(self, method: Callable[..., Awaitable[T]], request: Any, timeout_s: float) -> T:
        """Made again, it might undo what was done."""
        with translated_errors():
            return await method(request, timeout=timeout_s)

    async def _call(self, method: Callable[..., Awaitable[T]], request: Any) -> T:
        async def once(timeout_s: float) -> T:
            with translated_errors():
                return await method(request, timeout=timeout_s)

        return await retried(self._retry, self.timeout_s, once)


def find_model(models: Sequence[Model], name: str) -> Model:
    """The variant of this name.

    Raises:
        ServerError: NOT_FOUND, as the server would say it.
    """
    for model in models:
        if model.name == name:
            return model
    names = [model.name for model in models]
    near = get_close_matches(name, names, 1, 0.8)
    hint = f"; did you mean {near[0]}?" if near else ""
    known = ", ".join(names) or "none"
    raise ServerError("NOT_FOUND", f"no model '{name}'; the server knows {known}{hint}")
