"""A stream of requests, answered in the order they came, and not read on while there is no room for more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeAlias

import grpc
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.pending import Pending, RequestTrace
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.forms import Known
from rootserve.server.wire.reply import asked_of, error_in_stream

Context = grpc.aio.ServicerContext[Any, Any]
Message: TypeAlias = "oip.ModelInferRequest | Known"
Response: TypeAlias = "bytes | oip.ModelStreamInferResponse"
"""An answer as it is sent, or a refusal."""

_PENDING = 128
"""Requests of one stream that are under way."""


_DRAINING = "the server is shutting down; what this stream still sends is for another one"


class Requests(Protocol):
    """What each request of a stream needs; refusals have been told when they come."""

    @property
    def draining(self) -> asyncio.Event:
        """Set as soon as the server shuts down."""

    def parse(
        self,
        message: Message,
        method: str,
        context: Context,
        timeout_s: float | None,
    ) -> Pending:
        """The request that ``message`` is."""

    async def submit_in_turn(self, pending: Pending, context: Context) -> None:
        """Hand it on, as soon as there is room for it."""

    async def respond(self, pending: Pending, context: Context, *, streamed: bool = False) -> bytes:
        """Its response, as it is sent."""

    def withdraw(self, pending: Pending, context: Context) -> None:
        """Nobody waits for its response."""

    def enter(self, trace: RequestTrace | None) -> None:
        """What is observed from now on is of a request with ``trace``."""


async def answer_stream(
    requests: Requests,
    method: str,
    messages: AsyncIterator[Message],
    context: Context,
) -> None:
    """Answer ``messages``, which come by ``method``.

    A server that shuts down answers what it has read, and then ends the stream: only a caller whose stream
    has ended opens one elsewhere.

    Raises:
        RefusalError: if the stream is over.
    """
    stream = _Stream(requests, method, context)
    reader = asyncio.ensure_future(stream.read(messages))
    stopper = asyncio.ensure_future(stream.stop_reading(reader))
    try:
        await stream.write()
        await asyncio.wait([reader])
        if stream.stopped:
            raise RefusalError(Reason.DRAINING, _DRAINING)
        reader.result()
    finally:
        reader.cancel()
        stopper.cancel()
        await asyncio.gather(reader, stopper, return_exceptions=True)
        stream.withdraw()


class _Stream:
    """One stream. What has begun is in a queue: requests under way, and refusals as they are sent."""

    def __init__(self, requests: Requests, method: str, context: Context) -> None:
        self._requests = requests
        self._method = method
        self._context = context
        self._begun: asyncio.Queue[Pending | Response | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_PENDING)
        self._waits_for_message = False
        self.stopped = False
        """Whether no more is read because the server shuts down."""
        # Triton's header: the stream is to end with the status of its first error.
        metadata = context.invocation_metadata() or ()
        self._ends_at_error = any(pair == ("triton_grpc_error", "true") for pair in metadata)

    async def read(self, messages: AsyncIterator[Message]) -> None:
        """Begin each request as soon as there is room for it: until then no other is read."""
        try:
            await self._room.acquire()
            while (message := await self._next(messages)) is not None:
                self._begun.put_nowait(await self._begin(message))
                del message  # while the next one is waited for
                await self._room.acquire()
        finally:
            self._begun.put_nowait(None)

    async def stop_reading(self, reader: asyncio.Future[None]) -> None:
        """Have ``reader`` end once the server shuts down, but not in the middle of a request."""
        await self._requests.draining.wait()
        if self._waits_for_message:
            self.stopped = True
            reader.cancel()

    async def _next(self, messages: AsyncIterator[Message]) -> Message | None:
        """The next message; None if there is none, or it is for another server."""
        if self._requests.draining.is_set():
            self.stopped = True
            return None
        self._waits_for_message = True
        try:
            return await anext(messages, None)
        finally:
            self._waits_for_message = False

    async def write(self) -> None:
        """Send the answers, until all requests that were read have one."""
        while (begun := await self._begun.get()) is not None:
            response = await self._answer(begun) if isinstance(begun, Pending) else begun
            await self._context.write(response)
            self._room.release()

    def withdraw(self) -> None:
        """Nobody waits for what is under way."""
        while not self._begun.empty():
            if isinstance(begun := self._begun.get_nowait(), Pending):
                self._requests.withdraw(begun, self._context)

    async def _begin(self, message: Message) -> Pending | Response:
        asked = asked_of(message)
        try:
            pending = self._requests.parse(message, self._method, self._context, None)
            del message  # its content is held once, in what is pending
            await self._requests.submit_in_turn(pending, self._context)
        except RefusalError as refusal:
            if self._ends_at_error or refusal.reason is Reason.MEMORY_FULL:
                raise
            return error_in_stream(asked, refusal)
        return pending

    async def _answer(self, pending: Pending) -> Response:
        self._requests.enter(pending.trace)
        try:
            return await self._requests.respond(pending, self._context, streamed=True)
        except RefusalError as refusal:
            if self._ends_at_error:
                raise
            return error_in_stream(pending.asked, refusal)
