"""How a prepared request travels: as a call of its own, or over a stream."""

import asyncio
import re
from collections.abc import Iterable
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from tritonclient.grpc import service_pb2

from rootserve.client.wire import METHOD, STREAM_METHOD

_CODE = re.compile(r"\[([A-Z_]+)\]")


class CallFailed(Exception):  # noqa: N818 - what happened, for the one who counts it
    """The request was refused or failed.

    Attributes:
        code: Name of the status code.
        details: The server's words.
        reason: Why, as a word for programs (`google.rpc.ErrorInfo`); empty where the server told none.
    """

    def __init__(self, code: str, details: str, reason: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.details = details
        self.reason = reason


def _reason_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The reason of `google.rpc.ErrorInfo` in a status; empty without one that can be read."""
    for key, value in metadata:
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        status, info = status_pb2.Status(), error_details_pb2.ErrorInfo()
        try:
            status.ParseFromString(value)
            if any(detail.Unpack(info) for detail in status.details):
                return str(info.reason)
        except DecodeError:
            return ""
    return ""


class Transport(Protocol):
    """A way to one server."""

    async def call(self, body: bytes, timeout_s: float) -> service_pb2.ModelInferResponse:
        """Send a serialised request and wait for its answer.

        Raises:
            CallFailed: It was refused or failed, or there was no answer in time.
        """


class UnaryTransport:
    """Each request is a call of ModelInfer."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # Without a serialiser the prepared bytes go out as they are.
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, Any] = channel.unary_unary(
            METHOD,
            request_serializer=None,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

    async def call(self, body: bytes, timeout_s: float) -> service_pb2.ModelInferResponse:
        """See `Transport`."""
        try:
            return await self._call(body, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            reason = _reason_in(error.trailing_metadata() or ())
            raise CallFailed(error.code().name, error.details() or "", reason) from None


class StreamTransport:
    """Requests go over streams of ModelStreamInfer, at most one under way on each.

    A stream that is free is used again; as many are open as requests were under way at once.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._open: grpc.aio.StreamStreamMultiCallable[bytes, Any] = channel.stream_stream(
            STREAM_METHOD,
            request_serializer=None,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        self._free: list[Any] = []

    async def call(self, body: bytes, timeout_s: float) -> service_pb2.ModelInferResponse:
        """See `Transport`."""
        stream = self._take()
        answered = False
        try:
            async with asyncio.timeout(timeout_s):
                await stream.write(body)
                reply = await stream.read()
            answered = reply is not grpc.aio.EOF
        except TimeoutError:
            raise CallFailed("DEADLINE_EXCEEDED", f"no answer within {timeout_s:g} s") from None
        except grpc.aio.AioRpcError as error:
            raise CallFailed(error.code().name, error.details() or "") from None
        except asyncio.InvalidStateError:
            answered = False
        finally:
            if answered:
                self._free.append(stream)
            else:
                stream.cancel()
        if not answered:
            raise CallFailed("UNAVAILABLE", "the server ended the stream")
        if reply.error_message:
            match = _CODE.match(reply.error_message)
            # What google.rpc.ErrorInfo is in a status.
            parameters = reply.infer_response.parameters
            reason = parameters["reason"].string_param if "reason" in parameters else ""
            raise CallFailed(match[1] if match else "UNKNOWN", reply.error_message, reason)
        return reply.infer_response

    def _take(self) -> Any:
        while self._free:
            stream = self._free.pop()
            if not stream.done():
                return stream
        return self._open()
