"""From an outcome to a response or a status: the one table of codes."""

from __future__ import annotations

import asyncio
import functools
from typing import Any, NoReturn

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from tritonclient.grpc import service_pb2 as oip

from server.core.reasons import Reason, RefusalError
from server.dispatcher import Answer
from server.models import LOGITS_NAME, VERSION

STATUS_CODES = {
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNKNOWN_MODEL: grpc.StatusCode.NOT_FOUND,
    Reason.UNKNOWN_LAYER: grpc.StatusCode.NOT_FOUND,
    Reason.UNKNOWN_DATASET: grpc.StatusCode.NOT_FOUND,
    Reason.MODEL_NOT_READY: grpc.StatusCode.UNAVAILABLE,
    Reason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.ANALYSES_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DEADLINE_LOST: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.DEADLINE_EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.CANCELLED: grpc.StatusCode.CANCELLED,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.CONTROL_OFF: grpc.StatusCode.UNIMPLEMENTED,
    Reason.LOAD_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.INTERNAL_ERROR: grpc.StatusCode.INTERNAL,
    Reason.MODEL_FAILURE: grpc.StatusCode.INTERNAL,
    Reason.WORKER_LOST: grpc.StatusCode.INTERNAL,
}


async def abort(context: Any, refusal: RefusalError) -> NoReturn:
    """End the call of ``context`` with the status of ``refusal``; does not return.

    Raises:
        grpc.aio.AbortError: as grpc.aio wants it.
        asyncio.CancelledError: if the call ended in this very moment, by its deadline or its caller:
            nobody is to be told.
    """
    details = _status_details(refusal)
    try:
        await context.abort(STATUS_CODES[refusal.reason], refusal.message, details)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
    raise AssertionError("abort raises")


def _status_details(refusal: RefusalError) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata with a ``google.rpc.Status``: RetryInfo where a later try may succeed."""
    if refusal.retry_after_s is None:
        return ()
    delay = Duration()
    delay.FromNanoseconds(round(refusal.retry_after_s * 1e9))
    status = status_pb2.Status(code=STATUS_CODES[refusal.reason].value[0], message=refusal.message)
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return (("grpc-status-details-bin", status.SerializeToString()),)


def build_response(
    message: oip.ModelInferRequest, outputs: tuple[str, ...], answer: Answer, classes: int
) -> oip.ModelInferResponse:
    """The response to ``message``: always raw contents, the timeline in the parameters."""
    timeline = answer.timeline
    shape = len(answer.logits) // (4 * classes), classes
    where = timeline.worker, timeline.engine, timeline.precision
    response = oip.ModelInferResponse.FromString(
        _constant_part(message.model_name, outputs, shape, where)
    )
    if message.id:
        response.id = message.id
    contents = response.raw_output_contents
    for name in outputs:
        logits = answer.logits
        contents.append(logits if name == LOGITS_NAME else softmax(logits, classes))
    parameters = response.parameters
    parameters["queue_ns"].int64_param = timeline.queue_ns
    parameters["batch_wait_ns"].int64_param = timeline.batch_wait_ns
    parameters["compute_ns"].int64_param = timeline.compute_ns
    if timeline.decode_ns:
        parameters["decode_ns"].int64_param = timeline.decode_ns
    parameters["total_ns"].int64_param = timeline.total_ns
    parameters["batch_rows"].int64_param = timeline.batch_rows
    return response


@functools.lru_cache(maxsize=1024)
def _constant_part(
    model: str, outputs: tuple[str, ...], shape: tuple[int, int], where: tuple[str, str, str]
) -> bytes:
    """What many responses have in common, as protobuf: filling it in anew takes three times as long."""
    response = oip.ModelInferResponse(model_name=model, model_version=VERSION)
    for name in outputs:
        response.outputs.add(name=name, datatype="FP32", shape=shape)
    for key, value in zip(("worker", "engine", "precision"), where, strict=True):
        response.parameters[key].string_param = value
    content: bytes = response.SerializeToString()
    return content


def softmax(logits: bytes, classes: int) -> bytes:
    """Probabilities of float32 logits [rows, classes], in the same layout."""
    values = np.frombuffer(logits, "<f4").reshape(-1, classes).astype(np.float64)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    content: bytes = probabilities.astype("<f4").tobytes()
    return content
