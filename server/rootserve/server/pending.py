"""A request from its message to its answer: what the scheduler knows of it, and what all others need."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, get_args

from rootserve.server.core.decisions import Batch
from rootserve.server.core.queue import Request
from rootserve.server.refusals import RefusalError

Datatype = Literal["UINT8", "FP32", "BYTES"]
"""BYTES are picture files, as :mod:`rootserve.server.workers.encoding` lays them."""
DATATYPES: tuple[Datatype, ...] = get_args(Datatype)

request_ids = itertools.count(1)
"""What the scheduler tells requests apart by."""


class Asked(NamedTuple):
    """What of a request its response repeats."""

    model: str
    id: str


class Timeline(NamedTuple):
    """Where an answered request's time went, in nanoseconds, and with whom.

    ``queue_ns``: until its batch was closed. ``batch_wait_ns``: until the worker began to compute the
    batch. ``compute_ns``: the computation, of which ``decode_ns`` were spent on decoding pictures.
    ``total_ns``: from arrival to answer, which leaves a rest for the hand-over. ``version``, ``weights`` and
    ``generation`` are those of the model's card that computed it. Where a family was asked for, ``variant``
    is which of it computed the batch, ``accuracy`` that one's, and ``predicted_ns`` how long the computation
    was expected to take at most when the batch was formed, 0 if that was not known.
    """

    queue_ns: int
    batch_wait_ns: int
    compute_ns: int
    total_ns: int
    batch_rows: int
    worker: str
    engine: str
    precision: str
    decode_ns: int = 0
    version: str = ""
    weights: str = ""
    generation: int = 0
    variant: str = ""
    accuracy: float | None = None
    predicted_ns: int = 0


class Answer(NamedTuple):
    """``logits`` is float32 [rows, classes] in row-major order."""

    logits: bytes
    timeline: Timeline


class Report(NamedTuple):
    """When a worker computed a batch, on CLOCK_MONOTONIC; ``began_ns`` is 0 for one that failed.

    ``expired`` are the positions of requests it did not compute, because their deadline had passed;
    ``refused`` those of requests with a picture that cannot be used, and what is wrong with it.
    ``decode_ns`` is the part of the time that went into decoding pictures; ``engine``, ``precision`` and what
    follows are those that computed it.
    """

    began_ns: int
    ended_ns: int
    expired: tuple[int, ...] = ()
    refused: tuple[tuple[int, str], ...] = ()
    decode_ns: int = 0
    engine: str = ""
    precision: str = ""
    version: str = ""
    weights: str = ""
    generation: int = 0


class RequestTrace(Protocol):
    """The trace that is written of a request."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""


class Target(Protocol):
    """Where in memory that is shared with the caller an output goes."""

    @property
    def offset(self) -> int:
        """In bytes, within the region."""

    @property
    def region_name(self) -> str:
        """Of the region, as the caller registered it."""

    def write(self, content: bytes) -> None:
        """Write ``content`` there."""


class Output(NamedTuple):
    """An output as it is wanted: values, or the highest ``classes``; into ``target`` if there is one."""

    name: str
    classes: int = 0
    target: Target | None = None


class InBatch(NamedTuple):
    """A batch that has ended; ``ids`` are what the callers of its requests called them."""

    batch: Batch
    report: Report
    ids: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Story:
    """What is kept of a request that is to be explained."""

    request: Request
    """As it was offered."""
    waiting: int
    computing: int
    """Rows that it found when it came: those that waited for its model, and those with workers."""
    batch: InBatch | None = None


@dataclass(slots=True, eq=False)
class Pending:
    """A valid request."""

    request: Request
    asked: Asked
    datatype: Datatype
    content: bytes | memoryview
    """As it is laid into a worker's memory."""
    outputs: tuple[Output, ...]
    classes: tuple[str, ...]
    """What the logits stand for."""
    timeout_s: float | None = None
    """What gRPC left it when it came."""
    method: str = ""
    """``/package.Service/Method`` by which it came."""
    peer: str = ""
    """The caller's address and the name of its token, where requests are logged one by one."""
    call_id: str = ""
    """The ``x-request-id`` of its call, which proxies set, where it is told of and has no id of its own."""
    trace: RequestTrace | None = None
    worker: str = ""
    """The one that has it; "" while it waits."""
    left_queue_ns: int = 0
    """When it left the queue without having been in a batch, on CLOCK_MONOTONIC; 0 if it did not."""
    story: Story | None = None
    """Where requests are kept to be explained."""
    answer: asyncio.Future[Answer] = field(init=False)
    """There is one from its admission on."""

    @property
    def told_id(self) -> str:
        """By which logs tell it apart."""
        return self.asked.id or self.call_id

    def refuse(self, refusal: RefusalError) -> None:
        """It will get no answer, unless it has one."""
        if not self.answer.done():
            self.answer.set_exception(refusal)
