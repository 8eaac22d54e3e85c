"""What the service and a worker tell each other: small JSON datagrams over a local socket.

Tensors never travel here; they are in the slots of :mod:`server.workers.memory`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from server.engines.base import PrecisionSetting

MAX_BYTES = 1 << 17

Datatype = Literal["UINT8", "FP32"]
Segment = tuple[int, Datatype, int]


@dataclass(frozen=True, slots=True)
class Load:
    """To a worker: load a model, warm it up, answer Loaded or LoadFailed.

    ``image`` is the channels, height and width of its images, ``classes`` the number of its logits.
    ``behind``: while it goes on computing, and without using the new one before Swap.
    """

    model: str
    weights: str | None
    engine: str
    precision: PrecisionSetting
    image: tuple[int, int, int]
    classes: int
    behind: bool = False


@dataclass(frozen=True, slots=True)
class Swap:
    """To a worker: from now on compute ``model`` with what was loaded behind."""

    model: str


@dataclass(frozen=True, slots=True)
class Discard:
    """To a worker: forget what was loaded behind; with ``running``, what computes as well."""

    model: str
    running: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """To a worker: compute the batch in ``slot``, answer Done or Failed.

    ``segments`` are the rows, the datatype and the deadline of each request, one behind the other in the
    slot's input. A deadline is on CLOCK_MONOTONIC, or 0 for none.
    """

    batch: int
    model: str
    slot: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """From a worker: it runs; ``device_name`` and ``libraries`` describe what it computes with."""

    device_name: str
    libraries: dict[str, str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """From a worker: the model is loaded and warm. ``seconds`` is what that took.

    ``reason`` is why it computes with this engine, if there was a choice.
    """

    model: str
    engine: str
    precision: str
    seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """From a worker: the model cannot be loaded."""

    model: str
    error: str


@dataclass(frozen=True, slots=True)
class Done:
    """From a worker: the logits are in the slot's output. Times on CLOCK_MONOTONIC.

    ``expired`` are the positions of the segments whose deadline had passed when it began: they were not
    computed.
    """

    batch: int
    began_ns: int
    ended_ns: int
    expired: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """From a worker: the engine raised an exception; the worker lives."""

    batch: int
    error: str


Message = Load | Swap | Discard | Run | Started | Loaded | LoadFailed | Done | Failed

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (Load, Swap, Discard, Run, Started, Loaded, LoadFailed, Done, Failed)
}


def encode(message: Message) -> bytes:
    """One datagram."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)}).encode()


def decode(datagram: bytes) -> Message:
    """The message in ``datagram``, which :func:`encode` made."""
    content = json.loads(datagram)
    kind = _KINDS[content.pop("kind")]
    if kind is Run:
        content["segments"] = tuple(tuple(segment) for segment in content["segments"])
    elif kind is Load:
        content["image"] = tuple(content["image"])
    elif kind is Done:
        content["expired"] = tuple(content["expired"])
    return kind(**content)
