"""Logs refusals: one line per model and reason each second at most, which tells how many it stands for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from typing_extensions import override

from rootserve.server.observers.events import Observer, Refusal
from rootserve.server.refusals import Reason

_log = logging.getLogger(__name__)

INTERVAL_S = 1.0
MAX_ID_LENGTH = 128
_MAX_TEXT_LENGTH = 500

_ERRORS = frozenset({Reason.INTERNAL_ERROR, Reason.MODEL_FAILURE, Reason.WORKER_LOST})
_OF_THE_CALLER = frozenset(
    {
        Reason.INVALID_REQUEST,
        Reason.UNKNOWN_MODEL,
        Reason.UNKNOWN_LAYER,
        Reason.UNKNOWN_SERVICE,
        Reason.UNKNOWN_DATASET,
        Reason.UNKNOWN_REGION,
        Reason.ALREADY_REGISTERED,
        Reason.NOT_IMPLEMENTED,
        Reason.CONTROL_OFF,
        Reason.EXPLAIN_OFF,
        Reason.UNKNOWN_REQUEST,
        Reason.SHARED_MEMORY_OFF,
        Reason.CANCELLED,
        Reason.DEADLINE_LOST,
        Reason.DEADLINE_EXPIRED,
    }
)
# Reasons whose text is the server's own; that of others may quote what the caller sent.
_OWN_TEXT = frozenset(
    {
        # They name the token of the file, if one was found, and no token.
        Reason.UNAUTHENTICATED,
        Reason.PERMISSION_DENIED,
        Reason.MODEL_NOT_READY,
        Reason.QUEUE_FULL,
        Reason.DEADLINE_INFEASIBLE,
        Reason.DEADLINE_LOST,
        Reason.DEADLINE_EXPIRED,
        Reason.CANCELLED,
        Reason.DRAINING,
        Reason.INTERNAL_ERROR,
        Reason.MODEL_FAILURE,
        Reason.WORKER_LOST,
    }
)


@dataclass(slots=True)
class _Class:
    """Refusals of one model for one reason."""

    logged_s: float
    """When its last line was written."""
    suppressed: int = 0
    """Refusals since then."""
    latest: Refusal | None = None
    trace_id: str = ""
    """Of the latest of them."""


class RefusalLog(Observer):
    """An observer. Each line's ``count`` is how many refusals it tells of; they add up to all of them.

    Keeps a few words for each served model and reason. ``clock`` gives monotonic seconds; ``trace_id``
    the trace of the request that is being refused, "" if it is in none.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        trace_id: Callable[[], str] | None = None,
    ) -> None:
        self._clock = clock
        self._trace_id = trace_id
        self._classes: dict[tuple[str, Reason], _Class] = {}

    @override
    def refused(self, refusal: Refusal) -> None:
        now = self._clock()
        trace_id = self._trace_id() if self._trace_id else ""
        reason = refusal.reason
        known = self._classes.get((refusal.model, reason))
        if known is not None and now - known.logged_s < INTERVAL_S:
            known.suppressed += 1
            # Kept for the next line, which shows no more of the id and no text.
            known.latest = replace(
                refusal, request_id=refusal.request_id[: MAX_ID_LENGTH + 1], message="", story=None
            )
            known.trace_id = trace_id
            return
        text = f": {printable(refusal.message, _MAX_TEXT_LENGTH)}" if reason in _OWN_TEXT else ""
        count = 1
        if known is not None and known.suppressed:
            count += known.suppressed
            text += f"; and {known.suppressed:,} more in the last {now - known.logged_s:.0f} s"
        self._classes[refusal.model, reason] = _Class(now)
        _log.log(
            _level(reason),
            "request refused (%s)%s",
            reason.value,
            text,
            extra=_fields(refusal, trace_id, count),
        )

    async def follow(self) -> None:
        """Tell of what was suppressed even if nothing more is refused; runs until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.catch_up()

    def catch_up(self) -> None:
        """Write a line for each class that had refusals since its last one, if that may be now."""
        now = self._clock()
        for (model, reason), known in self._classes.items():
            elapsed_s = now - known.logged_s
            if known.latest is None or elapsed_s < INTERVAL_S:
                continue
            _log.log(
                _level(reason),
                "%s more refused (%s) in the last %.0f s",
                f"{known.suppressed:,}",
                reason.value,
                elapsed_s,
                extra=_fields(known.latest, known.trace_id, known.suppressed),
            )
            self._classes[model, reason] = _Class(now)

    def close(self) -> None:
        """Tell of what is left, of all classes in one line."""
        left = {key: known.suppressed for key, known in self._classes.items() if known.suppressed}
        self._classes.clear()
        if left:
            by_class = {f"{reason.value} {model}".strip(): n for (model, reason), n in left.items()}
            _log.log(
                max(_level(reason) for _, reason in left),
                "before the end %s more were refused: %s",
                f"{sum(left.values()):,}",
                ", ".join(f"{name}: {n:,}" for name, n in by_class.items()),
                extra={"count": sum(left.values()), "by_class": by_class},
            )


def _level(reason: Reason) -> int:
    if reason in _ERRORS:
        return logging.ERROR
    return logging.INFO if reason in _OF_THE_CALLER else logging.WARNING


def _fields(refusal: Refusal, trace_id: str, count: int) -> dict[str, object]:
    """What a line carries; what is not known is left out."""
    known = {
        "request_id": printable(refusal.request_id, MAX_ID_LENGTH),
        "trace_id": trace_id,
        "model": refusal.model,
        "worker": refusal.worker,
        "method": refusal.method,
        "peer": printable(refusal.peer, MAX_ID_LENGTH),
        "token": refusal.token,
    }
    fields = {name: value for name, value in known.items() if value}
    return {**fields, "reason": refusal.reason.value, "count": count}


def printable(text: str, longest: int) -> str:
    """``text`` as one line of bounded length."""
    kept = "".join(char if char.isprintable() else "?" for char in text[:longest])
    return f"{kept}..." if len(text) > longest else kept
