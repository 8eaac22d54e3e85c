"""Who writes traces, and which one the running task is in; knows nothing of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar

from rootserve.server.observers.events import Observer
from rootserve.server.pending import RequestTrace

_trace_id: ContextVar[str] = ContextVar("trace_id", default="")


def current_trace_id() -> str:
    """The trace of the request that the running task answers, 32 hexadecimal digits; "" if there is none."""
    return _trace_id.get()


def set_current_trace_id(trace_id: str) -> None:
    """Tell what :func:`current_trace_id` gives from now on in the running task."""
    _trace_id.set(trace_id)


class TracesError(RuntimeError):
    """Traces cannot be written; one line that says why."""


class Traces(Observer):
    """Who writes traces: an observer that is asked for the trace of a request when it comes."""

    def begin(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]], request_id: str
    ) -> RequestTrace | None:
        """A request came now; None if it is not to be traced.

        ``method`` is "/package.Service/Method". ``metadata`` may hold the caller's W3C trace context.
        """

    def close(self) -> None:
        """Write what is left; waits a few seconds at most."""
