"""Logs requests one by one, where that is asked for: all of them, or the answers that took long."""

from __future__ import annotations

import logging
from collections.abc import Callable

from typing_extensions import override

from rootserve.server.observers.events import Observer, Refusal
from rootserve.server.observers.refusal_log import MAX_ID_LENGTH, printable
from rootserve.server.pending import Pending, Timeline

_log = logging.getLogger(__name__)

_NS_PER_MS = 1e6


class AccessLog(Observer):
    """A line for each request: all of them with ``every``, else answers that took ``slow_s`` and longer.

    An answer's line has its timeline in milliseconds. ``trace_id`` tells the trace of the request at hand, ""
    if it is in none.
    """

    def __init__(
        self, *, every: bool, slow_s: float, trace_id: Callable[[], str] | None = None
    ) -> None:
        self._every = every
        self._slow_ns = slow_s * 1e9
        self._trace_id = trace_id

    @override
    def answered(self, pending: Pending, timeline: Timeline) -> None:
        slow = timeline.total_ns >= self._slow_ns
        if not (slow or self._every):
            return
        request = pending.request
        fields = {
            "method": pending.method,
            "peer": pending.peer,
            "request_id": printable(pending.told_id, MAX_ID_LENGTH),
            "trace_id": self._trace_id() if self._trace_id else "",
            "model": request.model,
            "rows": request.rows,
            "priority": request.priority,
            **_timeline_fields(timeline),
        }
        _log.log(
            logging.WARNING if slow else logging.INFO,
            "%s %s in %.1f ms",
            "slow request:" if slow else "answered",
            request.model,
            timeline.total_ns / _NS_PER_MS,
            extra={name: value for name, value in fields.items() if value not in ("", None)},
        )

    @override
    def refused(self, refusal: Refusal) -> None:
        if not self._every:
            return
        fields = {
            "method": refusal.method,
            "peer": refusal.peer,
            "token": refusal.token,
            "request_id": printable(refusal.request_id, MAX_ID_LENGTH),
            "trace_id": self._trace_id() if self._trace_id else "",
            "model": refusal.model,
            "code": refusal.code,
            "reason": refusal.reason.value,
            "total_ms": round(refusal.seconds * 1e3, 3),
        }
        _log.info("refused", extra={name: value for name, value in fields.items() if value != ""})


def _timeline_fields(timeline: Timeline) -> dict[str, object]:
    """Where the time went, in milliseconds, and with whom."""
    told: dict[str, object] = {}
    for name, value in timeline._asdict().items():
        if name == "predicted_ns" and not value:
            continue  # nothing was predicted
        if name.endswith("_ns"):
            told[f"{name.removesuffix('_ns')}_ms"] = round(value / _NS_PER_MS, 3)
        else:
            told[name] = value
    return told
