"""Tokens at the door: a handler runs, and its request is decoded, only for callers who may call it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from server.core.reasons import RefusalError
from server.observers.events import Observer, Refusal
from server.security.authorize import Authorizer
from server.wire.callers import peer_of, set_token_name
from server.wire.reply import abort

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Guard:
    """Wraps handlers so that each call is checked first, a stream once when it begins."""

    def __init__(self, authorizer: Authorizer, observer: Observer) -> None:
        self._authorizer = authorizer
        self._observer = observer

    def wrap(self, method: str, handler: Handler) -> Handler:
        """The handler of ``/package.Service/Method`` behind the check."""
        # grpc.aio's handlers are coroutines; the type stubs know the synchronous ones.
        inner: Any = handler
        decode = inner.request_deserializer

        async def call(content: bytes, context: Any) -> Any:
            await self._admit(method, context)
            return await inner.unary_unary(decode(content), context)

        async def generate(content: bytes, context: Any) -> None:
            await self._admit(method, context)
            await inner.unary_stream(decode(content), context)

        async def stream(contents: AsyncIterator[bytes], context: Any) -> None:
            await self._admit(method, context)
            requests = (decode(content) async for content in contents)
            await inner.stream_stream(requests, context)

        encode = handler.response_serializer
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, None, encode)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(generate, None, encode)
        return grpc.unary_unary_rpc_method_handler(call, None, encode)

    async def _admit(self, method: str, context: Any) -> None:
        began_s = time.monotonic()
        try:
            token = self._authorizer.check(method, context.invocation_metadata() or ())
            set_token_name(token)
        except RefusalError as refusal:
            waited_s = time.monotonic() - began_s
            told = Refusal(
                "",
                refusal.reason,
                waited_s,
                "",
                refusal.message,
                method=method,
                peer=peer_of(context),
            )
            self._observer.refused(told)
            await abort(context, refusal)
