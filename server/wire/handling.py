"""Around every handler: bytes are counted, and a refusal ends the call with its status.

Bytes that are no message are refused as well: grpc.aio answers them with UNKNOWN and a stack trace, so the
deserialisers are wrapped, and the handler itself refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from server.core.reasons import Reason, RefusalError
from server.observers.events import Observer, Refusal
from server.wire.guard import Guard
from server.wire.reply import abort

_log = logging.getLogger(__name__)

UNREAD_S = 60.0
"""Whoever takes none of its responses for so long does not hold a place among the analyses any more."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class _Undecodable:
    """Stands for a request that could not be decoded."""


_UNDECODABLE = _Undecodable()


class CheckedServer:
    """Takes the place of a server when services are added to it, and wraps their handlers."""

    def __init__(
        self, server: grpc.aio.Server, observer: Observer, guard: Guard | None = None
    ) -> None:
        self._server = server
        self._observer = observer
        self._guard = guard

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Called by the generated ``add_..._to_server``."""
        self._server.add_generic_rpc_handlers(
            [_Checked(handler, self._observer, self._guard) for handler in handlers]
        )

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        """Called by the generated code as well; grpc.aio has no use for it."""


class _Checked(grpc.GenericRpcHandler):
    def __init__(
        self, inner: grpc.GenericRpcHandler, observer: Observer, guard: Guard | None
    ) -> None:
        self._inner = inner
        self._observer = observer
        self._guard = guard
        self._wrapped: dict[str, Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = self._inner.service(handler_call_details)
            if handler is None:
                return None
            handler = _wrap(handler, method.rpartition("/")[2], self._observer)
            self._wrapped[method] = self._guard.wrap(method, handler) if self._guard else handler
        return self._wrapped[method]


def _wrap(handler: Handler, method: str, observer: Observer) -> Handler:
    decode = _tolerant(handler.request_deserializer, method, observer)
    encode = _counted(handler.response_serializer, method, observer)
    fault = _Fault(method, observer)
    if handler.request_streaming:
        assert handler.response_streaming, "no service here has client streaming alone"
        stream = _checked_responses(handler.stream_stream, _Decoded, fault)
        return grpc.stream_stream_rpc_method_handler(stream, decode, encode)
    if handler.response_streaming:
        generator = _checked_responses(handler.unary_stream, _decoded, fault)
        return grpc.unary_stream_rpc_method_handler(generator, decode, encode)
    call = _checked_call(handler.unary_unary, fault)
    return grpc.unary_unary_rpc_method_handler(call, decode, encode)


def _tolerant(
    deserialize: Callable[[bytes], Any] | None, method: str, observer: Observer
) -> Callable[[bytes], Any]:
    assert deserialize is not None, "generated services decode"

    def decode(content: bytes) -> Any:
        observer.transferred(method, len(content), 0)
        try:
            return deserialize(content)
        except DecodeError:
            return _UNDECODABLE

    return decode


def _counted(
    serialize: Callable[[Any], bytes] | None, method: str, observer: Observer
) -> Callable[[Any], bytes]:
    assert serialize is not None, "generated services encode"

    def encode(message: Any) -> bytes:
        content = serialize(message)
        observer.transferred(method, 0, len(content))
        return content

    return encode


def _decoded(request: Any) -> Any:
    """``request``.

    Raises:
        RefusalError: if it could not be decoded.
    """
    if request is _UNDECODABLE:
        text = "the bytes that came are no message of the type that this method expects"
        raise RefusalError(Reason.INVALID_REQUEST, text)
    return request


class _Fault:
    """What becomes of an exception that is no refusal: it is logged, counted, and the call ends INTERNAL."""

    def __init__(self, method: str, observer: Observer) -> None:
        self._method = method
        self._observer = observer

    async def end(self, context: Any, began_s: float) -> None:
        """Called while the exception is handled."""
        _log.exception("%s failed", self._method, extra={"method": self._method})
        text = "the service itself failed on this call; its log tells why"
        waited_s = time.monotonic() - began_s
        reason = Reason.INTERNAL_ERROR
        self._observer.refused(Refusal("", reason, waited_s, "", text, method=self._method))
        await abort(context, RefusalError(reason, text))


def _is_of_grpc(error: Exception) -> bool:
    """Whether the call has ended by itself: it was aborted, or nobody is there to be answered."""
    return isinstance(error, grpc.aio.AbortError | grpc.aio.BaseError)


def _checked_call(behave: Any, fault: _Fault) -> Any:
    @functools.wraps(behave)
    async def checked(request: Any, context: Any) -> Any:
        began_s = time.monotonic()
        try:
            return await behave(_decoded(request), context)
        except RefusalError as refusal:
            await abort(context, refusal)
        except NotImplementedError:
            # What the generated base class does for the protocol's methods that are not served.
            text = "this server does not implement this method"
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)
        except Exception as error:
            if _is_of_grpc(error):
                raise
            await fault.end(context, began_s)

    return checked


def _checked_responses(behave: Any, decoded: Callable[[Any], Any], fault: _Fault) -> Any:
    """A handler of several responses. ``decoded`` takes its request, or the iterator of its requests."""

    @functools.wraps(behave)
    async def checked(request: Any, context: Any) -> None:
        began_s = time.monotonic()
        # A stream's requests are refused here and not where they are read: answers to earlier ones may
        # be on their way.
        try:
            await _write(behave(decoded(request), context), context)
        except RefusalError as refusal:
            await abort(context, refusal)
        except Exception as error:
            if _is_of_grpc(error):
                raise
            await fault.end(context, began_s)

    return checked


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


class _Decoded:
    """The requests of a stream; raises RefusalError at one that could not be decoded."""

    def __init__(self, requests: AsyncIterator[Any]) -> None:
        self._requests = aiter(requests)

    def __aiter__(self) -> _Decoded:
        return self

    async def __anext__(self) -> Any:
        return _decoded(await anext(self._requests))
