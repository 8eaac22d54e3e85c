"""What observers are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rootserve.server.core.reasons import Reason


class Timeline(NamedTuple):
    """Where an answered request's time went, in nanoseconds, and with whom.

    ``queue_ns``: until its batch was closed. ``batch_wait_ns``: until the worker began to compute the
    batch. ``compute_ns``: the computation, of which ``decode_ns`` were spent on decoding pictures.
    ``total_ns``: from arrival to answer, which leaves a rest for the hand-over.
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
    method: str = ""
    peer: str = ""
    """The caller's address, where it was refused before anything else is known of it."""


class Observer:
    """Someone who is told. Must neither raise nor wait; overrides what it has a use for."""

    def answered(self, model: str, rows: int, timeline: Timeline) -> None:
        """A request of ``rows`` was answered."""

    def refused(self, refusal: Refusal) -> None:
        """A request got no answer."""

    def computed(self, worker: str, model: str, rows: int, seconds: float) -> None:
        """``worker`` computed a batch of ``rows`` in ``seconds``."""

    def worker_lost(self, worker: str) -> None:
        """``worker`` ended and will be replaced."""

    def model_loaded(self, model: str, outcome: str) -> None:
        """A caller asked for ``model`` to be loaded: "ok" or "failed"."""

    def transferred(self, method: str, received: int, sent: int) -> None:
        """A gRPC message of so many bytes came or went; ``method`` is one the server has."""

    def analysis_began(self, model: str) -> None:
        """An analysis of ``model`` has been taken."""

    def analysed(self, model: str, images: int) -> None:
        """The sums of so many more images are in."""

    def analysis_ended(self, model: str, outcome: str) -> None:
        """An analysis that had begun is over: "ok", "failed" or "cancelled"."""


class Observers(Observer):
    """Several observers as one. Each event goes only to those that have a use for it."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        for name in vars(Observer):
            if not name.startswith("_"):
                listeners = [
                    getattr(observer, name)
                    for observer in observers
                    if getattr(type(observer), name) is not getattr(Observer, name)
                ]
                setattr(self, name, _fan_out(listeners))


def _fan_out(listeners: Sequence[Callable[..., None]]) -> Callable[..., None]:
    """Calls all of them; as fast as a call of the only one, if there is one."""
    if len(listeners) == 1:
        return listeners[0]

    def tell(*event: object) -> None:
        for listener in listeners:
            listener(*event)

    return tell
