"""One request from its message to its response; whoever is to know is told how it went."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.core.reasons import Reason, RefusalError
from rootserve.server.dispatcher import Admitted, Dispatcher, InferenceRequest
from rootserve.server.models import Models
from rootserve.server.observers.events import Observer, Refusal
from rootserve.server.observers.traces import RequestTrace, Traces, set_current_trace_id
from rootserve.server.wire.memory_guard import MemoryGuard
from rootserve.server.wire.parse import Asked, find_model, parse_request
from rootserve.server.wire.parse_outputs import Output, RequestLimits
from rootserve.server.wire.reply import STATUS_CODES, build_response
from rootserve.server.wire.shared_memory import Regions

Context = grpc.aio.ServicerContext[Any, Any]

_SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_DEADLINE_SLACK_S = 0.005


@dataclass(slots=True)
class Call:
    """A valid request, and what its response needs; under way when it is admitted."""

    asked: Asked
    request: InferenceRequest
    outputs: tuple[Output, ...]
    classes: tuple[str, ...]
    timeout_s: float | None
    trace: RequestTrace | None
    admitted: Admitted | None = None


class Requests:
    """Takes requests and gives their responses."""

    def __init__(  # noqa: PLR0913, PLR0917 - one for each room it speaks to
        self,
        models: Models,
        dispatcher: Dispatcher,
        observer: Observer,
        limits: RequestLimits,
        regions: Regions,
        memory: MemoryGuard,
        traces: Traces | None = None,
    ) -> None:
        self._models = models
        self._dispatcher = dispatcher
        self._observer = observer
        self._limits = limits
        self._regions = regions
        self._memory = memory
        self._traces = traces

    def begin_trace(
        self, method: str, message: oip.ModelInferRequest, context: Context
    ) -> RequestTrace | None:
        """The trace of ``message``, which came now; None if it is not to be traced."""
        if self._traces is None:
            return None
        metadata = context.invocation_metadata() or ()
        trace = self._traces.begin(f"{_SERVICE}/{method}", metadata, message.id)
        self.enter(trace)
        return trace

    def enter(self, trace: RequestTrace | None) -> None:
        """What is observed from now on is of a request with ``trace``: a stream's requests share a task."""
        if self._traces is not None:
            set_current_trace_id(trace.trace_id if trace else "")

    def take(
        self, message: oip.ModelInferRequest, timeout_s: float | None, trace: RequestTrace | None
    ) -> Call:
        """Parse ``message`` and hand it on.

        Raises:
            RefusalError: if the request will not be answered.
        """
        call = self._parse(message, timeout_s, trace)
        try:
            call.admitted = self._dispatcher.admit(call.request, trace)
        except RefusalError as refusal:
            self._tell(call, refusal)
            raise
        return call

    async def take_in_turn(
        self, message: oip.ModelInferRequest, trace: RequestTrace | None
    ) -> Call:
        """As :meth:`take`, but wait while the queue is full.

        Raises:
            RefusalError: if the request will not be answered.
        """
        call = self._parse(message, None, trace)
        del message
        try:
            async with self._memory.sending():
                call.admitted = await self._dispatcher.admit_in_turn(call.request, trace)
        except RefusalError as refusal:
            self._tell(call, refusal)
            raise
        except asyncio.CancelledError:
            self._tell_cancelled(call)
            raise
        return call

    async def answer(self, call: Call) -> oip.ModelInferResponse:
        """Wait for the answer and build the response.

        Raises:
            RefusalError: if the request will not be answered.
        """
        assert call.admitted is not None
        try:
            answer = await self._dispatcher.answer(call.admitted)
        except RefusalError as refusal:
            self._tell(call, refusal)
            raise
        except asyncio.CancelledError:
            self._tell_cancelled(call)
            raise
        if call.trace is not None:
            call.trace.answered(call.request.model)
        return build_response(call.asked, call.outputs, answer, call.classes)

    def withdraw(self, call: Call) -> None:
        """Nobody waits for the answer any more."""
        assert call.admitted is not None
        self.enter(call.trace)
        self._dispatcher.withdraw(call.admitted)
        self._tell_cancelled(call)

    def _parse(
        self, message: oip.ModelInferRequest, timeout_s: float | None, trace: RequestTrace | None
    ) -> Call:
        arrived_s = time.monotonic()
        asked = Asked.of(message)
        model_name = ""
        try:
            model = find_model(self._models, message.model_name, message.model_version)
            card = model.card
            model_name = card.name
            parsed = parse_request(message, card, self._limits, arrived_s, timeout_s, self._regions)
        except RefusalError as refusal:
            self._tell_of(asked, model_name, arrived_s, trace, refusal)
            raise
        return Call(asked, parsed.inference, parsed.outputs, card.classes, timeout_s, trace)

    def _tell_cancelled(self, call: Call) -> None:
        # gRPC cancels a call whose deadline has passed just as one whose caller cancelled it.
        waited_s = time.monotonic() - call.request.arrived_s
        late = call.timeout_s is not None and waited_s > call.timeout_s - _DEADLINE_SLACK_S
        reason = Reason.DEADLINE_EXPIRED if late else Reason.CANCELLED
        text = "the deadline passed" if late else "the caller cancelled"
        self._tell(call, RefusalError(reason, text))

    def _tell(self, call: Call, refusal: RefusalError) -> None:
        request = call.request
        self._tell_of(call.asked, request.model, request.arrived_s, call.trace, refusal)

    def _tell_of(
        self,
        asked: Asked,
        model: str,
        arrived_s: float,
        trace: RequestTrace | None,
        refusal: RefusalError,
    ) -> None:
        waited_s = time.monotonic() - arrived_s
        reason, text, worker = refusal.reason, refusal.message, refusal.worker
        self._observer.refused(Refusal(model, reason, waited_s, asked.id, text, worker))
        if trace is not None:
            trace.refused(model, reason, STATUS_CODES[reason].name, text)
