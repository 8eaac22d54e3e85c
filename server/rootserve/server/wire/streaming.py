"""A stream of requests, answered in the order they came, and not read on while there is no room for more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.core.reasons import Reason, RefusalError
from rootserve.server.wire.parse import Asked
from rootserve.server.wire.reply import FINAL_RESPONSE, error_in_stream
from rootserve.server.wire.requests import Call, Requests

Context = grpc.aio.ServicerContext[Any, Any]

_PENDING = 128
"""Requests of one stream that are under way."""


async def answer_stream(
    requests: Requests, messages: AsyncIterator[oip.ModelInferRequest], context: Context
) -> None:
    """Answer ``messages``.

    Raises:
        RefusalError: if the stream is over.
    """
    stream = _Stream(requests, context)
    reader = asyncio.ensure_future(stream.read(messages))
    try:
        await stream.write()
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        stream.withdraw()


class _Stream:
    """One stream. What has begun is in a queue: calls under way, and refusals as they are sent."""

    def __init__(self, requests: Requests, context: Context) -> None:
        self._requests = requests
        self._context = context
        self._begun: asyncio.Queue[Call | oip.ModelStreamInferResponse | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_PENDING)
        # Triton's header: the stream is to end with the status of its first error.
        metadata = context.invocation_metadata() or ()
        self._ends_at_error = any(pair == ("triton_grpc_error", "true") for pair in metadata)

    async def read(self, messages: AsyncIterator[oip.ModelInferRequest]) -> None:
        """Begin each request as soon as there is room for it: until then no other is read."""
        try:
            await self._room.acquire()
            async for message in messages:
                self._begun.put_nowait(await self._begin(message))
                del message  # while the next one is waited for
                await self._room.acquire()
        finally:
            self._begun.put_nowait(None)

    async def write(self) -> None:
        """Send the answers, until all requests that were read have one."""
        while (begun := await self._begun.get()) is not None:
            response = await self._answer(begun) if isinstance(begun, Call) else begun
            await self._context.write(response)
            self._room.release()

    def withdraw(self) -> None:
        """Nobody waits for what is under way."""
        while not self._begun.empty():
            if isinstance(begun := self._begun.get_nowait(), Call):
                self._requests.withdraw(begun)

    async def _begin(self, message: oip.ModelInferRequest) -> Call | oip.ModelStreamInferResponse:
        asked = Asked.of(message)
        trace = self._requests.begin_trace("ModelStreamInfer", message, self._context)
        try:
            return await self._requests.take_in_turn(message, trace)
        except RefusalError as refusal:
            if self._ends_at_error or refusal.reason is Reason.MEMORY_FULL:
                raise
            return error_in_stream(asked, refusal)

    async def _answer(self, call: Call) -> oip.ModelStreamInferResponse:
        self._requests.enter(call.trace)
        try:
            response = await self._requests.answer(call)
        except RefusalError as refusal:
            if self._ends_at_error:
                raise
            return error_in_stream(call.asked, refusal)
        response.parameters[FINAL_RESPONSE].bool_param = True
        return oip.ModelStreamInferResponse(infer_response=response)
