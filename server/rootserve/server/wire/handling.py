"""Around every handler: who may call, what comes in and goes out, and how a call ends that is refused.

Every method is registered as one of streams, whatever it is: only then are its messages left where they are
until they are asked for. A caller without a token, or one more than memory allows, is refused before
its message is received.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc

from rootserve.server.observers.events import Observer
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.security.authorize import Authorizer
from rootserve.server.wire.callers import peer_of, set_token_name
from rootserve.server.wire.forms import Forms
from rootserve.server.wire.memory_guard import MemoryGuard
from rootserve.server.wire.receiving import Receiver
from rootserve.server.wire.refuse import Refusals, refuse

_log = logging.getLogger(__name__)

UNREAD_S = 60.0
"""Whoever takes none of its responses for so long does not hold a place among the analyses any more."""

_GONE_S = 0.02

_INFERENCE = ("ModelInfer", "ModelStreamInfer")
"""Methods whose messages may be known before they are decoded."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CheckedServer:
    """Takes the place of a server when services are added to it, and wraps their handlers."""

    def __init__(
        self,
        server: grpc.aio.Server,
        observer: Observer,
        memory: MemoryGuard,
        max_message_bytes: int,
        authorizer: Authorizer | None = None,
    ) -> None:
        self._server = server
        self._door = _Door(observer, memory, max_message_bytes, authorizer)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Called by the generated ``add_..._to_server``."""
        self._server.add_generic_rpc_handlers(
            [_Checked(handler, self._door) for handler in handlers]
        )

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        """Called by the generated code as well; grpc.aio has no use for it."""


class _Door:
    """What every call passes on its way in, and on its way out when it has no answer."""

    def __init__(
        self,
        observer: Observer,
        memory: MemoryGuard,
        max_message_bytes: int,
        authorizer: Authorizer | None,
    ) -> None:
        self.observer = observer
        self.forms = Forms()
        self.receiver = Receiver(observer, memory, max_message_bytes)
        self._refusals = Refusals(observer)
        self._memory = memory
        self._authorizer = authorizer

    def admit(self, method: str, context: Any) -> None:
        """Let a call of ``/package.Service/Method`` begin.

        Raises:
            RefusalError: if its caller may not, or memory is short.
        """
        if self._authorizer is not None:
            token = self._authorizer.check(method, context.invocation_metadata() or ())
            set_token_name(token)
        self._memory.check()

    async def end(self, error: Exception, method: str, context: Any, began_s: float) -> None:
        """End a call of which ``error`` came, and tell of it unless whoever raised it has.

        Raises:
            Exception: ``error``, if it says that the call has ended by itself: it was aborted, or nobody is
                there to be answered.
        """
        match error:
            case RefusalError():
                refusal = error
            case NotImplementedError():
                # What the generated base class does for the protocol's methods that are not served.
                text = "this server does not implement this method"
                refusal = RefusalError(Reason.NOT_IMPLEMENTED, text)
            case grpc.aio.AbortError() | grpc.aio.BaseError():
                raise error
            case _:
                _log.error("%s failed", method, exc_info=error, extra={"method": method})
                text = "the service itself failed on this call; its log tells why"
                refusal = RefusalError(Reason.INTERNAL_ERROR, text)
        self._refusals.tell(refusal, began_s, method, peer_of(context))
        await refuse(context, refusal)


class _Checked(grpc.GenericRpcHandler):
    def __init__(self, inner: grpc.GenericRpcHandler, door: _Door) -> None:
        self._inner = inner
        self._door = door
        self._wrapped: dict[str, Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = self._inner.service(handler_call_details)
            if handler is None:
                return None
            self._wrapped[method] = _wrap(handler, method, self._door)
        return self._wrapped[method]


def _wrap(handler: Any, method: str, door: _Door) -> Handler:
    """``handler`` behind ``door``. grpc.aio's handlers are coroutines; the type stubs know others."""
    name = method.rpartition("/")[2]
    decode, serialize = handler.request_deserializer, handler.response_serializer
    if name in _INFERENCE:
        decode = door.forms.decode

    def encode(message: Any) -> bytes:
        content: bytes = message if isinstance(message, bytes) else serialize(message)
        door.observer.transferred(name, 0, len(content))
        return content

    async def receive_one(context: Any) -> Any:
        request = await door.receiver.receive(context, name, decode)
        if request is None:
            # Of a caller that is gone the cancellation comes right behind; nothing can be sent to it.
            await asyncio.sleep(_GONE_S)
            raise RefusalError(Reason.INVALID_REQUEST, "no message came, expected one")
        return request

    async def call(_: object, context: Any) -> Any:
        began_s = time.monotonic()
        try:
            door.admit(method, context)
            # Not kept here: what is in the request may be large, and the handler lets go of it.
            return await handler.unary_unary(await receive_one(context), context)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
            await door.end(error, method, context, began_s)
        return None

    async def stream(_: object, context: Any) -> None:
        began_s = time.monotonic()
        try:
            door.admit(method, context)
            if handler.request_streaming:
                requests = _Requests(door.receiver, context, name, decode)
                await _write(handler.stream_stream(requests, context), context)
            else:
                await _write(handler.unary_stream(await receive_one(context), context), context)
        except Exception as error:  # noqa: BLE001 - as above
            await door.end(error, method, context, began_s)

    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(stream, None, encode)
    assert not handler.request_streaming, "no service here has client streaming alone"
    return grpc.stream_unary_rpc_method_handler(call, None, encode)


async def _write(result: Any, context: Any) -> None:
    """Carry out a handler, which either yields its responses or writes them to ``context`` by itself.

    Raises:
        RefusalError: if the caller does not take a response that was yielded: what the handler holds is free
            then.
    """
    if not hasattr(result, "__aiter__"):
        await result
        return
    async with contextlib.aclosing(result) as responses:
        async for response in responses:
            try:
                await asyncio.wait_for(context.write(response), UNREAD_S)
            except TimeoutError:
                text = f"no response was taken for {UNREAD_S:g} s"
                raise RefusalError(Reason.CANCELLED, text) from None


class _Requests(AsyncIterator[Any]):
    """The messages of a stream. No generator: one of those is over after its first error."""

    def __init__(self, receiver: Receiver, context: Any, name: str, decode: Any) -> None:
        self._next: Callable[[], Awaitable[Any]]
        self._next = functools.partial(receiver.receive, context, name, decode)

    async def __anext__(self) -> Any:
        message = await self._next()
        if message is None:
            raise StopAsyncIteration
        return message
