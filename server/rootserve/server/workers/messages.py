"""What the service and a worker tell each other: small datagrams over a local socket.

The two that come with every batch, Run and Done, are packed structures; the others are JSON. Tensors never
travel here; they are in the slots of :mod:`rootserve.server.workers.memory`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from rootserve.server.datagram import Codec, JsonMessage
from rootserve.server.engines.base import PrecisionSetting
from rootserve.server.pending import DATATYPES, Datatype

Segment = tuple[int, Datatype, int]


class Load(JsonMessage, frozen=True):
    """To a worker: load a model, warm it up, answer Loaded or LoadFailed.

    ``weights_sha256`` is that of the file: another one is not what is served.
    ``image`` is the channels, height and width of its images, ``classes`` the number of its logits, and
    ``short_side`` the pixels of a picture's shorter side before its middle becomes such an image.
    ``behind``: while it goes on computing, and without using the new one before Swap.
    """

    model: str
    weights: str | None
    weights_sha256: str
    engine: str
    precision: PrecisionSetting
    image: tuple[int, int, int]
    classes: int
    short_side: int
    behind: bool = False


class Swap(JsonMessage, frozen=True):
    """To a worker: from now on compute ``model`` with what was loaded behind."""

    model: str


class Discard(JsonMessage, frozen=True):
    """To a worker: forget what was loaded behind; with ``running``, what computes as well."""

    model: str
    running: bool = False


class Run(NamedTuple):
    """To a worker: compute the batch in ``slot``, answer Done or Failed.

    ``segments`` are the rows, the datatype and the deadline of each request, one behind the other in the
    slot's input. A deadline is on CLOCK_MONOTONIC, or 0 for none. ``beside``: while it computes others so;
    without it, nothing else is to be computed meanwhile.
    """

    batch: int
    model: str
    slot: int
    segments: tuple[Segment, ...]
    beside: bool = False


class Started(JsonMessage, frozen=True):
    """From a worker: it runs; ``device_name`` and ``libraries`` describe what it computes with."""

    device_name: str
    libraries: dict[str, str]


class Loaded(JsonMessage, frozen=True):
    """From a worker: the model is loaded and warm. ``seconds`` is what that took.

    ``reason`` is why it computes with this engine, if there was a choice; ``latency`` is how many seconds
    batches of so many rows take alone. Of batches side by side, ``streams`` images are computed at a time, if
    it is not 1, and one takes ``speed_up`` times as long as alone.
    """

    model: str
    engine: str
    precision: str
    seconds: float
    latency: tuple[tuple[int, float], ...]
    reason: str = ""
    streams: int = 1
    speed_up: float = 1.0


class LoadFailed(JsonMessage, frozen=True):
    """From a worker: the model cannot be loaded."""

    model: str
    error: str


class Done(NamedTuple):
    """From a worker: the logits are in the slot's output. Times on CLOCK_MONOTONIC.

    ``expired`` are the positions of the segments whose deadline had passed when it began, ``refused``
    those with a picture that cannot be used, and what is wrong with it: neither were computed.
    ``decode_ns`` is the part of the time that went into decoding pictures.
    """

    batch: int
    began_ns: int
    ended_ns: int
    expired: tuple[int, ...] = ()
    refused: tuple[tuple[int, str], ...] = ()
    decode_ns: int = 0


class Decoding(JsonMessage, frozen=True):
    """From a worker, now and then: it decodes the pictures of a batch, and does not hang."""

    batch: int


class Failed(JsonMessage, frozen=True):
    """From a worker: the engine raised an exception; the worker lives."""

    batch: int
    error: str


Message = Load | Swap | Discard | Run | Started | Loaded | LoadFailed | Done | Decoding | Failed

_codec: Codec[Any] = Codec(
    Load | Swap | Discard | Started | Loaded | LoadFailed | Decoding | Failed
)

# The first byte tells the kind; JSON begins with a brace.
_RUN_MARK, _DONE_MARK = b"R", b"D"
_RUN = struct.Struct("<cQHHB")  # mark, batch, slot, length of the model's name, beside
_SEGMENT = struct.Struct("<HBq")  # rows, datatype, deadline
_DONE = struct.Struct("<cQqqqH")  # mark, batch, began, ended, decoding, number of expired segments
_POSITION = struct.Struct("<H")  # of a segment that expired
_REFUSAL = struct.Struct("<HH")  # position of a segment, length of what is wrong with it
_DATATYPE_NUMBERS = {datatype: number for number, datatype in enumerate(DATATYPES)}


def encode(message: Message) -> bytes:
    """One datagram."""
    if isinstance(message, Run):
        name = message.model.encode()
        head = _RUN.pack(_RUN_MARK, message.batch, message.slot, len(name), message.beside)
        segments = [
            _SEGMENT.pack(rows, _DATATYPE_NUMBERS[datatype], deadline_ns)
            for rows, datatype, deadline_ns in message.segments
        ]
        return b"".join((head, name, *segments))
    if isinstance(message, Done):
        batch, began_ns, ended_ns, expired, refused, decode_ns = message
        head = _DONE.pack(_DONE_MARK, batch, began_ns, ended_ns, decode_ns, len(expired))
        refusals = (
            _REFUSAL.pack(position, len(text.encode())) + text.encode()
            for position, text in refused
        )
        return b"".join((head, *map(_POSITION.pack, expired), *refusals))
    return _codec.encode(message)


def decode(datagram: bytes) -> Message:
    """The message in ``datagram``, which :func:`encode` made."""
    match datagram[:1]:
        case b"R":
            _, batch, slot, length, beside = _RUN.unpack_from(datagram)
            names = _RUN.size + length
            segments = tuple(
                (rows, DATATYPES[datatype], deadline_ns)
                for rows, datatype, deadline_ns in _SEGMENT.iter_unpack(datagram[names:])
            )
            return Run(batch, datagram[_RUN.size : names].decode(), slot, segments, beside != 0)
        case b"D":
            _, batch, began_ns, ended_ns, decode_ns, count = _DONE.unpack_from(datagram)
            if len(datagram) == _DONE.size:
                return Done(batch, began_ns, ended_ns, decode_ns=decode_ns)
            refusals = _DONE.size + count * _POSITION.size
            expired = tuple(p for (p,) in _POSITION.iter_unpack(datagram[_DONE.size : refusals]))
            refused = tuple(_read_refusals(datagram, refusals))
            return Done(batch, began_ns, ended_ns, expired, refused, decode_ns)
    message: Message = _codec.decode(datagram)
    return message


def _read_refusals(datagram: bytes, place: int) -> Iterator[tuple[int, str]]:
    """Positions and texts from byte ``place`` to the end."""
    while place < len(datagram):
        position, length = _REFUSAL.unpack_from(datagram, place)
        place += _REFUSAL.size + length
        yield position, datagram[place - length : place].decode()
