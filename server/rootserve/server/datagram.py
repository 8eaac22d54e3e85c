"""Datagrams between the service and its child processes: what messages of workers and analyses share."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

MAX_BYTES = 1 << 17
"""Of a datagram."""

_Any = TypeVar("_Any")


class JsonMessage(msgspec.Struct, frozen=True, tag=True, tag_field="kind"):
    """One message: a JSON object whose ``kind`` is the name of the class."""


class Codec(Generic[_Any]):
    """To datagrams and back, for messages of ``kinds``: a union of such classes."""

    def __init__(self, kinds: Any) -> None:
        self._encoder = msgspec.json.Encoder()
        self._decoder: msgspec.json.Decoder[_Any] = msgspec.json.Decoder(kinds)

    def encode(self, message: _Any) -> bytes:
        """One datagram."""
        return self._encoder.encode(message)

    def decode(self, datagram: bytes) -> _Any:
        """The message in ``datagram``.

        Raises:
            msgspec.DecodeError: if it is none of them.
        """
        return self._decoder.decode(datagram)
