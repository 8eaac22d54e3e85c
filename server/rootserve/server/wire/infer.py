"""ModelInfer and ModelStreamInfer: from a message to a request under way, from its answer to a response."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from rootserve.server.core.queue import Request
from rootserve.server.dispatcher import Dispatcher
from rootserve.server.families import Interface, interface_of
from rootserve.server.models import Models
from rootserve.server.observers.events import Observer
from rootserve.server.observers.traces import Traces, set_current_trace_id
from rootserve.server.pending import Asked, Pending, RequestTrace, request_ids
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.callers import call_id_of, caller_of, peer_of, share_of
from rootserve.server.wire.find import find_model
from rootserve.server.wire.forms import Known, Read
from rootserve.server.wire.load_report import LoadReports
from rootserve.server.wire.memory_guard import MemoryGuard
from rootserve.server.wire.parse_choice import ANY, Wanted, parse_choice
from rootserve.server.wire.parse_input import check_values, parse_input
from rootserve.server.wire.parse_outputs import (
    RequestLimits,
    invalid,
    parse_outputs,
    parse_priority,
    parse_time,
)
from rootserve.server.wire.refuse import Refusals
from rootserve.server.wire.reply import LONGEST_ID, asked_of, write_response
from rootserve.server.wire.shared_memory import Regions
from rootserve.server.wire.streaming import answer_stream

Context = grpc.aio.ServicerContext[Any, Any]

_SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_UNARY = f"/{_SERVICE}/ModelInfer"

_NO_REGIONS = Regions()
# Years: no deadline at all. gRPC gives calls without a timeout centuries.
_LONGEST_WAIT_S = 1e8
_DEADLINE_SLACK_S = 0.005
# Beyond a day it is a time of day, or the wrong unit.
_LONGEST_DEADLINE_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Inference:
    """The rooms that a request passes, and what it may ask for."""

    models: Models
    dispatcher: Dispatcher
    observer: Observer
    limits: RequestLimits
    regions: Regions
    memory: MemoryGuard
    traces: Traces | None = None
    names_callers: bool = False
    """Whether requests are to know who sent them."""
    caller_key: str = ""
    """The metadata whose value tells whose share of a family a request takes; "": the token's name does."""
    load_reports: LoadReports | None = None


class InferService(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Parses, hands on, replies; tells of each request that gets no answer."""

    def __init__(self, inference: Inference) -> None:
        self._rooms = inference
        self._dispatcher = inference.dispatcher
        self._traces = inference.traces
        self._refusals = Refusals(inference.observer)

    @property
    def draining(self) -> asyncio.Event:
        """Set as soon as the server shuts down."""
        return self._dispatcher.draining

    async def ModelInfer(  # noqa: N802 - the protocol's name
        self, request: oip.ModelInferRequest | Known, context: Context
    ) -> bytes:
        """Answer one request; the response as it is sent."""
        pending = self.parse(request, _UNARY, context, context.time_remaining())
        del request  # its content is held once, in what is pending
        try:
            self._dispatcher.submit(pending)
        except RefusalError as refusal:
            self._tell(pending, refusal, context)
            raise
        response = await self.respond(pending, context)
        if self._rooms.load_reports is not None:
            context.set_trailing_metadata(self._rooms.load_reports.trailers())
        return response

    async def ModelStreamInfer(  # noqa: N802
        self, request_iterator: AsyncIterator[oip.ModelInferRequest | Known], context: Context
    ) -> None:
        """Answer a stream of requests, side by side, in the order they came."""
        await answer_stream(self, f"/{_SERVICE}/ModelStreamInfer", request_iterator, context)

    def parse(
        self,
        message: oip.ModelInferRequest | Known,
        method: str,
        context: Context,
        timeout_s: float | None,
    ) -> Pending:
        """The request that ``message``, which came now by ``method``, is.

        Raises:
            RefusalError: if it is not valid, which has been told.
        """
        trace = None
        if self._traces is not None:
            request_id = message.id or call_id_of(context)
            trace = self._traces.begin(method, context.invocation_metadata() or (), request_id)
            self.enter(trace)
        arrived_s = time.monotonic()
        rooms, model_name = self._rooms, ""
        try:
            model = find_model(rooms.models, message.model_name, message.model_version)
            interface = interface_of(model)
            model_name = interface.name
            share = share_of(context, rooms.caller_key)
            if isinstance(message, Known):
                pending = parse_known(message, interface, rooms.limits, arrived_s, timeout_s, share)
            else:
                wanted = parse_choice(message, model) if message.parameters else ANY
                pending = parse_request(
                    message,
                    interface,
                    rooms.limits,
                    arrived_s,
                    timeout_s,
                    rooms.regions,
                    wanted,
                    share,
                )
        except RefusalError as refusal:
            self._refusals.tell(
                refusal,
                arrived_s,
                method,
                peer_of(context),
                model=model_name,
                request_id=asked_of(message).id or call_id_of(context),
                trace=trace,
            )
            raise
        pending.method, pending.trace = method, trace
        if rooms.names_callers:
            pending.peer = caller_of(context)
            pending.call_id = "" if pending.asked.id else call_id_of(context)
        return pending

    async def submit_in_turn(self, pending: Pending, context: Context) -> None:
        """Hand ``pending`` on, as soon as there is room for it.

        Raises:
            RefusalError: if it will not be answered, which has been told.
        """
        try:
            if not self._dispatcher.submit_at_once(pending):
                async with self._rooms.memory.sending():
                    await self._dispatcher.submit_in_turn(pending)
        except (RefusalError, asyncio.CancelledError) as error:
            self._tell(pending, error, context)
            raise

    async def respond(self, pending: Pending, context: Context, *, streamed: bool = False) -> bytes:
        """Wait for the answer and write the response; ``streamed``, as one of a stream.

        Raises:
            RefusalError: if the request will not be answered, which has been told.
        """
        try:
            answer = await self._dispatcher.answer(pending)
            response = write_response(pending, answer, streamed=streamed)
        except (RefusalError, asyncio.CancelledError) as error:
            self._tell(pending, error, context)
            raise
        # Once the response is on its way: its caller does not wait while it is counted.
        loop = asyncio.get_running_loop()
        loop.call_soon(self._rooms.observer.answered, pending, answer.timeline)
        return response

    def withdraw(self, pending: Pending, context: Context) -> None:
        """Nobody waits for the answer any more."""
        self.enter(pending.trace)
        self._dispatcher.withdraw(pending)
        self._tell(pending, asyncio.CancelledError(), context)

    def enter(self, trace: RequestTrace | None) -> None:
        """What is observed from now on is of a request with ``trace``: a stream's requests share a task."""
        if self._traces is not None:
            set_current_trace_id(trace.trace_id if trace else "")

    def _tell(
        self, pending: Pending, error: RefusalError | asyncio.CancelledError, context: Context
    ) -> None:
        """``pending`` gets no answer."""
        if isinstance(error, asyncio.CancelledError):
            # gRPC cancels a call whose deadline has passed just as one whose caller cancelled it.
            waited_s = time.monotonic() - pending.request.arrived_s
            left_s = math.inf if pending.timeout_s is None else pending.timeout_s
            if waited_s > left_s - _DEADLINE_SLACK_S:
                error = RefusalError(Reason.DEADLINE_EXPIRED, "the deadline passed")
            else:
                error = RefusalError(Reason.CANCELLED, "the caller cancelled")
        if not pending.told_id:
            pending.call_id = call_id_of(context)
        self._refusals.tell_of(pending, error, peer_of(context))


def parse_request(  # noqa: PLR0913, PLR0917 - all that a request is checked against
    message: oip.ModelInferRequest,
    card: Interface,
    limits: RequestLimits,
    arrived_s: float,
    timeout_s: float | None,
    regions: Regions = _NO_REGIONS,
    wanted: Wanted = ANY,
    caller: str = "",
) -> Pending:
    """Check ``message`` against ``card``; ``timeout_s`` is what gRPC leaves it from ``arrived_s``.

    Raises:
        RefusalError: INVALID_REQUEST, naming the tensor, what came and what was expected, or
            UNKNOWN_REGION.
    """
    if len(message.id) > LONGEST_ID:
        raise invalid(f"id: {len(message.id)} characters came, expected at most {LONGEST_ID}")
    priority = limits.default_priority
    wait_s = math.inf if timeout_s is None else timeout_s
    if message.parameters:
        priority = parse_priority(message, limits)
        wait_s = min(
            wait_s,
            parse_time(message, "timeout", 1e-6),
            parse_time(message, "deadline_ms", 1e-3, _LONGEST_DEADLINE_S),
        )
    deadline_s = arrived_s + wait_s if wait_s < _LONGEST_WAIT_S else math.inf
    rows, datatype, content = parse_input(message, card, limits, regions)
    return Pending(
        Request(
            next(request_ids),
            card.name,
            rows,
            arrived_s,
            deadline_s,
            priority,
            floor=wanted.floor,
            allowed=wanted.allowed,
            caller=caller,
            files=datatype == "BYTES",
        ),
        Asked(message.model_name, message.id),
        datatype,
        content,
        parse_outputs(message, card, rows, limits, regions),
        card.classes,
        timeout_s,
    )


def parse_known(
    known: Known,
    card: Interface,
    limits: RequestLimits,
    arrived_s: float,
    timeout_s: float | None,
    caller: str,
) -> Pending:
    """As :func:`parse_request`, of which only what the images say is left once the form was read.

    Raises:
        RefusalError: as there.
    """
    read = known.form.read
    if read is None or read.interface is not card:
        pending = parse_request(known.whole(), card, limits, arrived_s, timeout_s, caller=caller)
        rows, datatype = pending.request.rows, pending.datatype
        known.form.read = Read(card, rows, datatype, pending.outputs)
        return pending
    check_values(read.datatype, known.content)
    wait_s = _LONGEST_WAIT_S if timeout_s is None else timeout_s
    return Pending(
        Request(
            next(request_ids),
            card.name,
            read.rows,
            arrived_s,
            arrived_s + wait_s if wait_s < _LONGEST_WAIT_S else math.inf,
            limits.default_priority,
            caller=caller,
        ),
        Asked(known.model_name, known.id),
        read.datatype,
        known.content,
        read.outputs,
        card.classes,
        timeout_s,
    )
