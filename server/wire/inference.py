"""inference.GRPCInferenceService: the Open Inference Protocol and Triton's common extensions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from server.control import ModelControl
from server.core.reasons import Reason, RefusalError
from server.dispatcher import Admitted, Dispatcher
from server.models import Models
from server.observers.events import Observer, Refusal
from server.observers.statistics import Statistics
from server.observers.traces import RequestTrace, Traces, set_current_trace_id
from server.wire import describe
from server.wire.callers import caller_of
from server.wire.parse import RequestLimits, find_model, parse_request
from server.wire.reply import STATUS_CODES, build_response

Context = grpc.aio.ServicerContext[Any, Any]

_SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_PENDING_PER_STREAM = 128
_DEADLINE_SLACK_S = 0.005


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Who answers, and how much it takes at once."""

    name: str
    version: str
    limits: RequestLimits


class _Call(NamedTuple):
    """A request under way, and what its response needs."""

    message: oip.ModelInferRequest
    admitted: Admitted
    outputs: tuple[str, ...]
    classes: int
    timeout_s: float | None
    trace: RequestTrace | None


class InferenceService(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Parses, hands on, replies; decides nothing."""

    def __init__(  # noqa: PLR0913, PLR0917 - one for each room it speaks to
        self,
        identity: ServerIdentity,
        models: Models,
        dispatcher: Dispatcher,
        statistics: Statistics,
        observer: Observer,
        control: ModelControl | None,
        traces: Traces | None = None,
    ) -> None:
        self._identity = identity
        self._models = models
        self._dispatcher = dispatcher
        self._statistics = statistics
        self._observer = observer
        self._control = control
        self._traces = traces

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
        return oip.ServerReadyResponse(ready=self._models.is_serving)

    async def ModelReady(  # noqa: N802
        self, request: oip.ModelReadyRequest, context: Context
    ) -> oip.ModelReadyResponse:
        """Whether one model is ready."""
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
        model = find_model(self._models, request.name, request.version)
        return describe.model_metadata(model)

    async def ModelConfig(  # noqa: N802
        self, request: oip.ModelConfigRequest, context: Context
    ) -> oip.ModelConfigResponse:
        """One model's configuration in Triton's terms."""
        model = find_model(self._models, request.name, request.version)
        return describe.model_config(model, self._dispatcher.limits)

    async def ModelStatistics(  # noqa: N802
        self, request: oip.ModelStatisticsRequest, context: Context
    ) -> oip.ModelStatisticsResponse:
        """Counts and times of one model, or of all when no name is given."""
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
        control = self._require_control()
        if request.parameters:
            names = ", ".join(sorted(request.parameters))
            text = f"parameters {names} came, expected none: weights come from the folder only"
            raise RefusalError(Reason.INVALID_REQUEST, text)
        # Once begun it is carried out, whether or not the caller waits for it.
        await asyncio.shield(
            asyncio.ensure_future(control.load(request.model_name, caller_of(context)))
        )
        return oip.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802
        self, request: oip.RepositoryModelUnloadRequest, context: Context
    ) -> oip.RepositoryModelUnloadResponse:
        """Serve a model no more, once what waits for it is answered."""
        control = self._require_control()
        await asyncio.shield(
            asyncio.ensure_future(control.unload(request.model_name, caller_of(context)))
        )
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
        trace = self._begin_trace("ModelInfer", request, context)
        return await self._answer(self._admit(request, context.time_remaining(), trace))

    async def ModelStreamInfer(  # noqa: N802
        self, request_iterator: AsyncIterator[oip.ModelInferRequest], context: Context
    ) -> None:
        """Answer a stream of requests, side by side, in the order they came."""
        begun: asyncio.Queue[_Call | oip.ModelStreamInferResponse | None] = asyncio.Queue()
        room = asyncio.Semaphore(_PENDING_PER_STREAM)

        async def read() -> None:
            try:
                async for message in request_iterator:
                    await room.acquire()
                    begun.put_nowait(self._begin_in_stream(message, context))
            finally:
                begun.put_nowait(None)

        reader = asyncio.ensure_future(read())
        try:
            while (call := await begun.get()) is not None:
                response = await self._answer_in_stream(call) if isinstance(call, _Call) else call
                await context.write(response)
                room.release()
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            while not begun.empty():
                if isinstance(call := begun.get_nowait(), _Call):
                    self._enter(call.trace)
                    self._dispatcher.withdraw(call.admitted)
                    self._tell_cancelled(call)

    def _begin_in_stream(
        self, message: oip.ModelInferRequest, context: Context
    ) -> _Call | oip.ModelStreamInferResponse:
        trace = self._begin_trace("ModelStreamInfer", message, context)
        try:
            return self._admit(message, None, trace)
        except RefusalError as refusal:
            return _error_in_stream(message, refusal)

    async def _answer_in_stream(self, call: _Call) -> oip.ModelStreamInferResponse:
        self._enter(call.trace)
        try:
            response = await self._answer(call)
        except RefusalError as refusal:
            return _error_in_stream(call.message, refusal)
        if call.message.parameters["triton_enable_empty_final_response"].bool_param:
            response.parameters["triton_final_response"].bool_param = True
        return oip.ModelStreamInferResponse(infer_response=response)

    def _begin_trace(
        self, method: str, message: oip.ModelInferRequest, context: Context
    ) -> RequestTrace | None:
        """The trace of ``message``, which came now; None if it is not to be traced."""
        if self._traces is None:
            return None
        metadata = context.invocation_metadata() or ()
        trace = self._traces.begin(f"{_SERVICE}/{method}", metadata, message.id)
        self._enter(trace)
        return trace

    def _enter(self, trace: RequestTrace | None) -> None:
        """What is observed from now on is of a request with ``trace``: a stream's requests share a task."""
        if self._traces is not None:
            set_current_trace_id(trace.trace_id if trace else "")

    def _admit(
        self, message: oip.ModelInferRequest, timeout_s: float | None, trace: RequestTrace | None
    ) -> _Call:
        """Parse ``message`` and hand it on; tell the observer if it is refused.

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
            admitted = self._dispatcher.admit(parsed.inference, trace)
        except RefusalError as refusal:
            self._tell(message, model_name, arrived_s, refusal, trace)
            raise
        return _Call(message, admitted, parsed.outputs, len(card.classes), timeout_s, trace)

    async def _answer(self, call: _Call) -> oip.ModelInferResponse:
        """Wait for the answer and build the response; tell the observer if there is none.

        Raises:
            RefusalError: if the request will not be answered.
        """
        try:
            answer = await self._dispatcher.answer(call.admitted)
        except RefusalError as refusal:
            request = call.admitted.request
            self._tell(call.message, request.model, request.arrived_s, refusal, call.trace)
            raise
        except asyncio.CancelledError:
            self._tell_cancelled(call)
            raise
        response = build_response(call.message, call.outputs, answer, call.classes)
        if call.trace is not None:
            call.trace.answered(call.admitted.request.model)
        return response

    def _tell_cancelled(self, call: _Call) -> None:
        """Tell the observer that nobody waits for the answer any more."""
        # gRPC cancels a call whose deadline has passed just as one whose caller cancelled it.
        request = call.admitted.request
        waited_s = time.monotonic() - request.arrived_s
        late = call.timeout_s is not None and waited_s > call.timeout_s - _DEADLINE_SLACK_S
        reason = Reason.DEADLINE_EXPIRED if late else Reason.CANCELLED
        text = "the deadline passed" if late else "the caller cancelled"
        refusal = RefusalError(reason, text)
        self._tell(call.message, request.model, request.arrived_s, refusal, call.trace)

    def _tell(
        self,
        message: oip.ModelInferRequest,
        model: str,
        arrived_s: float,
        refusal: RefusalError,
        trace: RequestTrace | None,
    ) -> None:
        waited_s = time.monotonic() - arrived_s
        reason, text, worker = refusal.reason, refusal.message, refusal.worker
        self._observer.refused(Refusal(model, reason, waited_s, message.id, text, worker))
        if trace is not None:
            trace.refused(model, reason, STATUS_CODES[reason].name, text)


def _error_in_stream(
    message: oip.ModelInferRequest, refusal: RefusalError
) -> oip.ModelStreamInferResponse:
    """A stream goes on after a refusal, which therefore is a message."""
    code = STATUS_CODES[refusal.reason].name
    failed = oip.ModelInferResponse(model_name=message.model_name, id=message.id)
    return oip.ModelStreamInferResponse(
        error_message=f"[{code}] {refusal.message}", infer_response=failed
    )
