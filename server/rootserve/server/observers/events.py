"""What observers are told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rootserve.server.core.scheduler import Batch
from rootserve.server.pending import Pending, Report, RequestTrace, Story, Timeline
from rootserve.server.refusals import Promise, Reason


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call, or a request of a stream, that got no answer. What is not known is ""."""

    reason: Reason
    message: str
    """What the caller is told; it may quote what the caller sent."""
    code: str
    """The name of the gRPC status that it gets."""
    seconds: float
    """From its arrival."""
    method: str
    """``/package.Service/Method``"""
    peer: str = ""
    """The caller's address."""
    token: str = ""
    """The name of the token that it came with."""
    model: str = ""
    request_id: str = ""
    """What the caller sent."""
    worker: str = ""
    """The one it failed on."""
    trace: RequestTrace | None = None
    left_queue_ns: int = 0
    """As of :class:`rootserve.server.pending.Pending`."""
    promise: Promise | None = None
    """What it could have had instead."""
    story: Story | None = None
    """Where requests are kept to be explained."""
    deadline_s: float = math.inf
    """Within what time of its arrival it was to be answered; infinite where that is not known, or never."""


class Observer:
    """Someone who is told. Must neither raise nor wait; overrides what it has a use for."""

    def answered(self, pending: Pending, timeline: Timeline) -> None:
        """The response to a request is built, and as good as sent."""

    def refused(self, refusal: Refusal) -> None:
        """A call got no answer; told once of each."""

    def batch_ended(self, batch: Batch, report: Report, requests: Sequence[Pending | None]) -> None:
        """A batch was computed, or failed; told before it is told what became of its requests.

        ``requests`` are those of the batch, None for one that nobody waits for any more.
        """

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
