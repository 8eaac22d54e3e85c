"""Where every refusal is told, once, and what status the call gets: the one table of codes."""

from __future__ import annotations

import math
import time
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from rootserve.server.observers.events import Observer, Refusal
from rootserve.server.pending import Pending, RequestTrace
from rootserve.server.refusals import Promise, Reason, RefusalError
from rootserve.server.wire.callers import token_name
from rootserve.server.wire.words import shorten

DOMAIN = "rootserve"
"""Of reasons in ``google.rpc.ErrorInfo``."""

STATUS_CODES = {
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNKNOWN_MODEL: grpc.StatusCode.NOT_FOUND,
    Reason.UNKNOWN_LAYER: grpc.StatusCode.NOT_FOUND,
    Reason.UNKNOWN_SERVICE: grpc.StatusCode.NOT_FOUND,
    Reason.UNKNOWN_DATASET: grpc.StatusCode.NOT_FOUND,
    Reason.MODEL_NOT_READY: grpc.StatusCode.UNAVAILABLE,
    Reason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.MEMORY_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.MESSAGE_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.ANALYSES_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DEADLINE_LOST: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.DEADLINE_INFEASIBLE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DEADLINE_EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.CANCELLED: grpc.StatusCode.CANCELLED,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.NOT_IMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    Reason.CONTROL_OFF: grpc.StatusCode.UNIMPLEMENTED,
    Reason.EXPLAIN_OFF: grpc.StatusCode.UNIMPLEMENTED,
    Reason.UNKNOWN_REQUEST: grpc.StatusCode.NOT_FOUND,
    Reason.SHARED_MEMORY_OFF: grpc.StatusCode.UNIMPLEMENTED,
    Reason.UNKNOWN_REGION: grpc.StatusCode.NOT_FOUND,
    Reason.ALREADY_REGISTERED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.REGIONS_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.LOAD_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.INTERNAL_ERROR: grpc.StatusCode.INTERNAL,
    Reason.MODEL_FAILURE: grpc.StatusCode.INTERNAL,
    Reason.WORKER_LOST: grpc.StatusCode.INTERNAL,
}


class Refusals:
    """Tells ``observer`` of every refusal, by whoever it is noticed first."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def tell_of(self, pending: Pending, refusal: RefusalError, peer: str) -> None:
        """A request that was valid gets no answer."""
        request = pending.request
        self.tell(
            refusal,
            request.arrived_s,
            pending.method,
            peer,
            model=request.model,
            request_id=pending.told_id,
            trace=pending.trace,
            pending=pending,
        )

    def tell(  # noqa: PLR0913 - all that is known
        self,
        refusal: RefusalError,
        since_s: float,
        method: str,
        peer: str,
        *,
        model: str = "",
        request_id: str = "",
        trace: RequestTrace | None = None,
        pending: Pending | None = None,
    ) -> None:
        """A call that came at ``since_s``, on the clock of time.monotonic, gets no answer."""
        if refusal.told:
            return
        refusal.told = True
        request = pending.request if pending else None
        self._observer.refused(
            Refusal(
                reason=refusal.reason,
                message=refusal.message,
                code=STATUS_CODES[refusal.reason].name,
                seconds=time.monotonic() - since_s,
                method=method,
                peer=peer,
                token=token_name(),
                model=model,
                request_id=request_id,
                worker=refusal.worker,
                trace=trace,
                left_queue_ns=pending.left_queue_ns if pending else 0,
                promise=refusal.promise,
                story=pending.story if pending else None,
                deadline_s=request.deadline_s - request.arrived_s if request else math.inf,
            )
        )


async def refuse(context: Any, refusal: RefusalError) -> None:
    """End the call of ``context`` with the status of ``refusal``; its handler has but to return.

    By ``context.abort``: a code that is set, gRPC sends behind an empty message, and then neither a proxy nor
    gRPC itself may try another server. Its exception and the call hold each other, so that all that has come
    of the message would stay until the garbage collector comes by: it is let go of, as ``refusal`` is.
    """
    let_go(refusal)
    text = shorten(refusal.message)
    details: tuple[tuple[str, bytes], ...] = ()
    if refusal.retry_after_s is not None or refusal.promise is not None:
        details = _status_details(refusal, text)
    try:
        await context.abort(STATUS_CODES[refusal.reason], text, details)
    except grpc.aio.AbortError as ended:
        let_go(ended)


def let_go(error: Exception) -> None:
    """Forget where ``error`` was raised: the frames there hold messages."""
    error.__traceback__ = error.__context__ = error.__cause__ = None


def _status_details(refusal: RefusalError, text: str) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata with a ``google.rpc.Status``.

    RetryInfo is in it where a later try may succeed, ErrorInfo where another deadline or floor would.
    """
    status = status_pb2.Status(code=STATUS_CODES[refusal.reason].value[0], message=text)
    if refusal.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(refusal.retry_after_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    if refusal.promise is not None:
        info = error_details_pb2.ErrorInfo(
            reason=refusal.reason.name, domain=DOMAIN, metadata=promise_metadata(refusal.promise)
        )
        status.details.add().Pack(info)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def promise_metadata(promise: Promise) -> dict[str, str]:
    """What could have been promised, as ErrorInfo takes it: words by name."""
    metadata = {"model": promise.model}
    if promise.earliest_s < math.inf:
        metadata["earliest_ms"] = f"{promise.earliest_s * 1e3:.3f}"
    if promise.floor is not None:
        metadata["accuracy_floor_fitting"] = str(promise.floor)
    return metadata
