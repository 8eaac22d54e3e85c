"""What observers are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from server.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Timeline:
    """Where an answered request's time went, in nanoseconds, and with whom.

    ``queue_ns``: until its batch was closed. ``batch_wait_ns``: until the worker began to compute the
    batch. ``compute_ns``: the computation. ``total_ns``: from arrival to answer, which leaves a rest
    for the hand-over.
    """

    queue_ns: int
    batch_wait_ns: int
    compute_ns: int
    total_ns: int
    batch_rows: int
    worker: str
    engine: str
    precision: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that got no answer. What is not known is ""."""

    model: str
    reason: Reason
    seconds: float
    """From its arrival."""
    request_id: str
    """What the caller sent."""
    message: str
    """What the caller is told; it may quote what the caller sent."""
    worker: str = ""
    """The one it failed on."""


class Observer(Protocol):
    """Someone who is told. Must neither raise nor wait."""

    def answered(self, model: str, rows: int, timeline: Timeline) -> None:
        """A request of ``rows`` was answered."""

    def refused(self, refusal: Refusal) -> None:
        """A request got no answer."""

    def computed(self, model: str, rows: int, seconds: float) -> None:
        """A batch of ``rows`` was computed in ``seconds``."""


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def answered(self, model: str, rows: int, timeline: Timeline) -> None:
        """See :class:`Observer`."""
        for observer in self._observers:
            observer.answered(model, rows, timeline)

    def refused(self, refusal: Refusal) -> None:
        """See :class:`Observer`."""
        for observer in self._observers:
            observer.refused(refusal)

    def computed(self, model: str, rows: int, seconds: float) -> None:
        """See :class:`Observer`."""
        for observer in self._observers:
            observer.computed(model, rows, seconds)
