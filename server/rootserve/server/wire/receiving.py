"""One message of a call: received when it is wanted, unpacked within the limit, decoded."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from rootserve.server.observers.events import Observer
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.memory_guard import MemoryGuard

_GZIP = b"\x1f\x8b\x08"
_DEFLATE = 0x78
"""The first byte of zlib's format as everyone writes it; in protobuf field 15, which no request here has."""
_EITHER_FORMAT = 32 + zlib.MAX_WBITS
_LARGE = 1 << 18
"""Unpacking so many bytes is left to a thread."""


class Receiver:
    """Receives messages of at most ``max_bytes``.

    gRPC's core would unpack compressed ones without looking at the limit, and is told to leave them packed.
    """

    def __init__(self, observer: Observer, memory: MemoryGuard, max_bytes: int) -> None:
        self._observer = observer
        self._memory = memory
        self._max_bytes = max_bytes

    async def receive(self, context: Any, method: str, decode: Callable[[bytes], Any]) -> Any:
        """The next message; None when the caller has sent its last.

        Raises:
            RefusalError: if it is no message of the type that is expected, or too large.
        """
        async with self._memory.sending(reads=True):
            # Never cancelled itself: grpc.aio would lose the message that comes all the same, for good.
            reading = asyncio.ensure_future(context.read())
            reading.add_done_callback(_seen)
            content = await asyncio.shield(reading)
        if content is grpc.aio.EOF:
            return None
        self._observer.transferred(method, len(content), 0)
        if is_packed(content):
            content = await self._unpack(content)
        try:
            return decode(content)
        except DecodeError:
            text = "the bytes that came are no message of the type that this method expects"
            raise RefusalError(Reason.INVALID_REQUEST, text) from None

    async def _unpack(self, content: bytes) -> bytes:
        if len(content) < _LARGE // 1000:  # not even the best compression makes that large
            return unpack(content, self._max_bytes)
        async with self._memory.sending():
            return await asyncio.to_thread(unpack, content, self._max_bytes)


def _seen(reading: asyncio.Future[Any]) -> None:
    """Nobody may wait for it any more, and the loop complains of errors that nobody saw."""
    if not reading.cancelled():
        reading.exception()


def is_packed(content: bytes) -> bool:
    """Whether ``content`` is in gzip's or zlib's format, with which no message begins."""
    if content.startswith(_GZIP):
        return True
    return len(content) > 1 and content[0] == _DEFLATE and (content[0] << 8 | content[1]) % 31 == 0


def unpack(content: bytes, max_bytes: int) -> bytes:
    """``content`` unpacked, which stops at ``max_bytes``.

    Raises:
        RefusalError: if it is damaged or larger.
    """
    machine = zlib.decompressobj(_EITHER_FORMAT)
    try:
        unpacked = machine.decompress(content, max_bytes + 1)
    except zlib.error as error:
        text = f"the compressed message that came is damaged: {error}"
        raise RefusalError(Reason.INVALID_REQUEST, text) from None
    if len(unpacked) > max_bytes:
        text = f"a message of more than {max_bytes} bytes came, compressed to {len(content)}"
        raise RefusalError(Reason.MESSAGE_TOO_LARGE, text)
    if not machine.eof:
        raise RefusalError(Reason.INVALID_REQUEST, "the compressed message that came is cut off")
    return unpacked
