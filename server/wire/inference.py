"""inference.GRPCInferenceService: the Open Inference Protocol and Triton's common extensions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from server.control import ModelControl
from server.core.reasons import Reason, RefusalError
from server.dispatcher import Dispatcher
from server.models import Models
from server.observers.events import Observer, Refusal
from server.observers.statistics import Statistics
from server.wire import describe
from server.wire.parse import RequestLimits, find_model, parse_request
from server.wire.reply import STATUS_CODES, abort, build_response

Context = grpc.aio.ServicerContext[Any, Any]

_PENDING_PER_STREAM = 128
_DEADLINE_SLACK_S = 0.005


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Who answers, and how much it takes at once."""

    name: str
    version: str
    limits: RequestLimits


class InferenceService(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Parses, hands on, replies; decides nothing."""

    def __init__(
        self,
        identity: ServerIdentity,
        models: Models,
        dispatcher: Dispatcher,
        statistics: Statistics,
        observer: Observer,
        control: ModelControl | None,
    ) -> None:
        self._identity = identity
        self._models = models
        self._dispatcher = dispatcher
        self._statistics = statistics
        self._observer = observer
        self._control = control

    # Health and metadata.

    async def ServerLive(  # noqa: N802 - the protocol's name
        self, request: oip.ServerLiveRequest, context: Context
    ) -> oip.ServerLiveResponse:
        """Whether the process answers at all."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802
        self, request: oip.ServerReadyRequest, context: Context
    ) -> oip.ServerReadyResponse:
        """Whether every served model is ready, and will be a moment longer."""
        return oip.ServerReadyResponse(ready=self._models.all_ready and not self._models.draining)

    async def ModelReady(  # noqa: N802
        self, request: oip.ModelReadyRequest, context: Context
    ) -> oip.ModelReadyResponse:
        """Whether one model is ready."""
        async with _refusals_to_status(context):
            model = find_model(self._models, request.name, request.version)
            return oip.ModelReadyResponse(ready=model.is_ready and not self._models.draining)

    async def ServerMetadata(  # noqa: N802
        self, request: oip.ServerMetadataRequest, context: Context
    ) -> oip.ServerMetadataResponse:
        """Name, version and protocol extensions."""
        return oip.ServerMetadataResponse(
            name=self._identity.name,
            version=self._identity.version,
            extensions=describe.EXTENSIONS,
        )

    async def ModelMetadata(  # noqa: N802
        self, request: oip.ModelMetadataRequest, context: Context
    ) -> oip.ModelMetadataResponse:
        """Tensors of one model."""
        async with _refusals_to_status(context):
            model = find_model(self._models, request.name, request.version)
            return describe.model_metadata(model)

    async def ModelConfig(  # noqa: N802
        self, request: oip.ModelConfigRequest, context: Context
    ) -> oip.ModelConfigResponse:
        """One model's configuration in Triton's terms."""
        async with _refusals_to_status(context):
            model = find_model(self._models, request.name, request.version)
            return describe.model_config(model, self._dispatcher.limits)

    async def ModelStatistics(  # noqa: N802
        self, request: oip.ModelStatisticsRequest, context: Context
    ) -> oip.ModelStatisticsResponse:
        """Counts and times of one model, or of all when no name is given."""
        async with _refusals_to_status(context):
            if request.name:
                chosen = [find_model(self._models, request.name, request.version)]
            else:
                chosen = self._models.served()
            return oip.ModelStatisticsResponse(
                model_stats=[
                    describe.model_statistics(model, self._statistics.by_model[model.card.name])
                    for model in chosen
                ]
            )

    async def RepositoryIndex(  # noqa: N802
        self, request: oip.RepositoryIndexRequest, context: Context
    ) -> oip.RepositoryIndexResponse:
        """Every model that is known, or only the ready ones."""
        return describe.repository_index(self._models, only_ready=request.ready)

    async def RepositoryModelLoad(  # noqa: N802
        self, request: oip.RepositoryModelLoadRequest, context: Context
    ) -> oip.RepositoryModelLoadResponse:
        """Load a model, or swap in its weights as they are now in the weights folder."""
        async with _refusals_to_status(context):
            control = self._require_control()
            if request.parameters:
                names = ", ".join(sorted(request.parameters))
                text = f"parameters {names} came, expected none: weights come from the folder only"
                raise RefusalError(Reason.INVALID_REQUEST, text)
            # Once begun it is carried out, whether or not the caller waits for it.
            await asyncio.shield(asyncio.ensure_future(control.load(request.model_name)))
            return oip.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802
        self, request: oip.RepositoryModelUnloadRequest, context: Context
    ) -> oip.RepositoryModelUnloadResponse:
        """Serve a model no more, once what waits for it is answered."""
        async with _refusals_to_status(context):
            control = self._require_control()
            await asyncio.shield(asyncio.ensure_future(control.unload(request.model_name)))
            return oip.RepositoryModelUnloadResponse()

    def _require_control(self) -> ModelControl:
        if self._control is None:
            text = (
                "models are not loaded on request; start the server with --model-control explicit"
            )
            raise RefusalError(Reason.CONTROL_OFF, text)
        return self._control

    # Inference.

    async def ModelInfer(  # noqa: N802
        self, request: oip.ModelInferRequest, context: Context
    ) -> oip.ModelInferResponse:
        """Answer one request."""
        async with _refusals_to_status(context):
            return await self._infer(request, context.time_remaining())

    async def ModelStreamInfer(  # noqa: N802
        self, request_iterator: AsyncIterator[oip.ModelInferRequest], context: Context
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        """Answer a stream of requests, side by side, in the order they came."""
        pending: asyncio.Queue[asyncio.Task[oip.ModelStreamInferResponse] | None] = asyncio.Queue()
        started: set[asyncio.Task[oip.ModelStreamInferResponse]] = set()
        room = asyncio.Semaphore(_PENDING_PER_STREAM)

        async def read() -> None:
            try:
                async for message in request_iterator:
                    await room.acquire()
                    task = asyncio.ensure_future(self._infer_in_stream(message))
                    started.add(task)
                    task.add_done_callback(started.discard)
                    pending.put_nowait(task)
            finally:
                pending.put_nowait(None)

        reader = asyncio.ensure_future(read())
        try:
            while (task := await pending.get()) is not None:
                yield await task
                room.release()
            await reader
        finally:
            reader.cancel()
            for task in tuple(started):
                task.cancel()
            await asyncio.gather(reader, *started, return_exceptions=True)

    async def _infer_in_stream(
        self, message: oip.ModelInferRequest
    ) -> oip.ModelStreamInferResponse:
        try:
            response = await self._infer(message, None)
        except RefusalError as refusal:
            code = STATUS_CODES[refusal.reason].name
            failed = oip.ModelInferResponse(model_name=message.model_name, id=message.id)
            return oip.ModelStreamInferResponse(
                error_message=f"[{code}] {refusal.message}", infer_response=failed
            )
        if message.parameters["triton_enable_empty_final_response"].bool_param:
            response.parameters["triton_final_response"].bool_param = True
        return oip.ModelStreamInferResponse(infer_response=response)

    async def _infer(
        self, message: oip.ModelInferRequest, timeout_s: float | None
    ) -> oip.ModelInferResponse:
        """Parse, hand on, build the response; tell the observer of what is not answered.

        Raises:
            RefusalError: if the request will not be answered.
        """
        arrived_s = time.monotonic()
        model_name = ""
        try:
            model = find_model(self._models, message.model_name, message.model_version)
            card = model.card
            model_name = card.name
            limits = self._identity.limits
            parsed = parse_request(message, card, limits, arrived_s, timeout_s)
            answer = await self._dispatcher.infer(parsed.inference)
        except RefusalError as refusal:
            waited_s = time.monotonic() - arrived_s
            told = Refusal(
                model_name, refusal.reason, waited_s, message.id, refusal.message, refusal.worker
            )
            self._observer.refused(told)
            raise
        except asyncio.CancelledError:
            # gRPC cancels a call whose deadline has passed just as one whose caller cancelled it.
            waited_s = time.monotonic() - arrived_s
            late = timeout_s is not None and waited_s > timeout_s - _DEADLINE_SLACK_S
            reason = Reason.DEADLINE_EXPIRED if late else Reason.CANCELLED
            text = "the deadline passed" if late else "the caller cancelled"
            self._observer.refused(Refusal(model_name, reason, waited_s, message.id, text))
            raise
        return build_response(message, parsed.outputs, answer, len(card.classes))


@contextlib.asynccontextmanager
async def _refusals_to_status(context: Context) -> AsyncIterator[None]:
    try:
        yield
    except RefusalError as refusal:
        await abort(context, refusal)
