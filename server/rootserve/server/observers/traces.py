"""Who writes traces, and what they are told of requests and batches; knows nothing of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from rootserve.server.core.reasons import Reason

_trace_id: ContextVar[str] = ContextVar("trace_id", default="")


def current_trace_id() -> str:
    """The trace of the request that the running task answers, 32 hexadecimal digits; "" if there is none."""
    return _trace_id.get()


def set_current_trace_id(trace_id: str) -> None:
    """Tell what :func:`current_trace_id` gives from now on in the running task."""
    _trace_id.set(trace_id)


class TracesError(RuntimeError):
    """Traces cannot be written; one line that says why."""


class RequestTrace(Protocol):
    """A traced request; it ends with exactly one of ``answered`` and ``refused``."""

    trace_id: str
    """32 hexadecimal digits."""

    def left_queue(self) -> None:
        """It waited until now and will be in no batch."""

    def answered(self, model: str) -> None:
        """The response is built."""

    def refused(self, model: str, reason: Reason, code: str, message: str) -> None:
        """It got no answer but the status ``code``, a gRPC name. ``model`` is "" if it is unknown."""


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """A traced request in its batch. ``arrived_ns`` is on CLOCK_MONOTONIC."""

    trace: RequestTrace
    arrived_ns: int
    rows: int
    attempts: int
    """How many workers died while they computed it."""
    expired: bool
    """Whether its deadline had passed when the worker began, so that it was not computed."""


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """A batch and where its time went, on CLOCK_MONOTONIC."""

    model: str
    rows: int
    requests: int
    worker: str
    engine: str
    precision: str
    closed_ns: int
    began_ns: int | None
    """When its worker began to compute it; None if it failed, for then nobody knows."""
    ended_ns: int


class Traces(Protocol):
    """Who writes traces. Must neither raise nor wait, but for ``close``."""

    def begin(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]], request_id: str
    ) -> RequestTrace | None:
        """A request came now; None if it is not to be traced.

        ``method`` is "package.Service/Method". ``metadata`` may hold the caller's W3C trace context.
        """

    def batch_ended(self, batch: BatchTimes, traced: Sequence[TracedRequest]) -> None:
        """A batch with traced requests was computed, or failed; told before they are answered."""

    def close(self) -> None:
        """Write what is left; waits a few seconds at most."""
