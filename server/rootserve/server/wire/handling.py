"""Around every handler: who may call, what comes in and goes out, and refusals, which end the call.

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

from rootserve.server.core.reasons import Reason, RefusalError
from rootserve.server.observers.events import Observer, Refusal
from rootserve.server.security.authorize import Authorizer
from rootserve.server.wire.callers import peer_of, set_token_name
from rootserve.server.wire.memory_guard import MemoryGuard
from rootserve.server.wire.receiving import Receiver
from rootserve.server.wire.reply import refuse

_log = logging.getLogger(__name__)

UNREAD_S = 60.0
"""Whoever takes none of its responses for so long does not hold a place among the analyses any more."""

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
    """What every call passes."""

    def __init__(
        self,
        observer: Observer,
        memory: MemoryGuard,
        max_message_bytes: int,
        authorizer: Authorizer | None,
    ) -> None:
        self.observer = observer
        self.receiver = Receiver(observer, memory, max_message_bytes)
        self._memory = memory
        self._authorizer = authorizer

    def admit(self, method: str, context: Any) -> None:
        """Let a call of ``/package.Service/Method`` begin.

        Raises:
            RefusalError: if its caller may not, or memory is short.
        """
        began_s = time.monotonic()
        try:
            if self._authorizer is not None:
                token = self._authorizer.check(method, context.invocation_metadata() or ())
                set_token_name(token)
            self._memory.check()
        except RefusalError as refusal:
            self.tell(refusal, began_s, method, peer_of(context))
            raise

    def tell(self, refusal: RefusalError, began_s: float, method: str = "", peer: str = "") -> None:
        """Tell the observer of a call that its handler did not answer."""
        waited_s = time.monotonic() - began_s
        self.observer.refused(
            Refusal("", refusal.reason, waited_s, "", refusal.message, method=method, peer=peer)
        )

    def fail(self, method: str, context: Any, began_s: float) -> None:
        """End a call whose handler raised what is no refusal: log it, count it, and say INTERNAL."""
        _log.exception("%s failed", method, extra={"method": method})
        text = "the service itself failed on this call; its log tells why"
        fault = RefusalError(Reason.INTERNAL_ERROR, text)
        self.tell(fault, began_s, method)
        refuse(context, fault)


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

    def encode(message: Any) -> bytes:
        content: bytes = serialize(message)
        door.observer.transferred(name, 0, len(content))
        return content

    async def receive_one(context: Any) -> Any:
        began_s = time.monotonic()
        try:
            request = await door.receiver.receive(context, name, decode)
            if request is None:
                raise RefusalError(Reason.INVALID_REQUEST, "no message came, expected one")
        except RefusalError as refusal:
            door.tell(refusal, began_s)
            raise
        return request

    async def call(_: object, context: Any) -> Any:
        began_s = time.monotonic()
        try:
            door.admit(method, context)
            # Not kept here: what is in the request may be large, and the handler lets go of it.
            return await handler.unary_unary(await receive_one(context), context)
        except RefusalError as refusal:
            refuse(context, refusal)
        except NotImplementedError:
            # What the generated base class does for the protocol's methods that are not served.
            context.set_code(grpc.StatusCode.UNIMPLEMENTED)
            context.set_details("this server does not implement this method")
        except Exception as error:
            if _is_of_grpc(error):
                raise
            door.fail(method, context, began_s)
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
        except RefusalError as refusal:
            refuse(context, refusal)
        except Exception as error:
            if _is_of_grpc(error):
                raise
            door.fail(method, context, began_s)

    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(stream, None, encode)
    assert not handler.request_streaming, "no service here has client streaming alone"
    return grpc.stream_unary_rpc_method_handler(call, None, encode)


def _is_of_grpc(error: Exception) -> bool:
    """Whether the call has ended by itself: it was aborted, or nobody is there to be answered."""
    return isinstance(error, grpc.aio.AbortError | grpc.aio.BaseError)


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
