"""From an outcome to a response or a status: the one table of codes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.core.reasons import Reason, RefusalError
from rootserve.server.dispatcher import Answer
from rootserve.server.models import LOGITS_NAME, VERSION
from rootserve.server.wire.parse import Asked
from rootserve.server.wire.parse_outputs import Output
from rootserve.server.wire.words import shorten
from rootserve.server.workers import encoding

FINAL_RESPONSE = "triton_final_response"
"""Streamed: whether a response is the last one to its request, which every one is here."""

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
    Reason.DEADLINE_EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.CANCELLED: grpc.StatusCode.CANCELLED,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.CONTROL_OFF: grpc.StatusCode.UNIMPLEMENTED,
    Reason.SHARED_MEMORY_OFF: grpc.StatusCode.UNIMPLEMENTED,
    Reason.UNKNOWN_REGION: grpc.StatusCode.NOT_FOUND,
    Reason.ALREADY_REGISTERED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.REGIONS_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.LOAD_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.INTERNAL_ERROR: grpc.StatusCode.INTERNAL,
    Reason.MODEL_FAILURE: grpc.StatusCode.INTERNAL,
    Reason.WORKER_LOST: grpc.StatusCode.INTERNAL,
}


def refuse(context: Any, refusal: RefusalError) -> None:
    """Have the call of ``context`` end with the status of ``refusal``, as soon as its handler returns.

    Not by ``context.abort``: its exception and the call hold each other, so that all that has come of the
    message stays in memory until the garbage collector comes by. The same is true of ``refusal``.
    """
    _let_go(refusal)
    text = shorten(refusal.message)
    context.set_code(STATUS_CODES[refusal.reason])
    context.set_details(text)
    if refusal.retry_after_s is not None:
        context.set_trailing_metadata(_status_details(refusal, text, refusal.retry_after_s))


def _let_go(refusal: RefusalError) -> None:
    """Forget where ``refusal`` was raised: the frames there hold messages."""
    refusal.__traceback__ = refusal.__context__ = refusal.__cause__ = None


def _status_details(
    refusal: RefusalError, text: str, retry_after_s: float
) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata with a ``google.rpc.Status``: RetryInfo where a later try may succeed."""
    delay = Duration()
    delay.FromNanoseconds(round(retry_after_s * 1e9))
    status = status_pb2.Status(code=STATUS_CODES[refusal.reason].value[0], message=text)
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return (("grpc-status-details-bin", status.SerializeToString()),)


def build_response(
    asked: Asked, outputs: tuple[Output, ...], answer: Answer, classes: Sequence[str]
) -> oip.ModelInferResponse:
    """The response: raw contents, but for what goes to shared memory; the timeline in the parameters.

    Raises:
        RefusalError: if shared memory that was to hold an output has shrunk.
    """
    timeline = answer.timeline
    rows = len(answer.logits) // (4 * len(classes))
    where = timeline.worker, timeline.engine, timeline.precision
    shapes = tuple((one.name, min(one.classes, len(classes))) for one in outputs)
    response = oip.ModelInferResponse.FromString(
        _constant_part(asked.model, shapes, (rows, len(classes)), where)
    )
    if asked.id:
        response.id = asked.id
    for position, output in enumerate(outputs):
        content = _content(output, answer.logits, classes)
        if output.target is not None:
            output.target.write(content)
            parameters = response.outputs[position].parameters
            parameters["shared_memory_region"].string_param = output.target.region.name
            parameters["shared_memory_byte_size"].int64_param = len(content)
            if output.target.offset:
                parameters["shared_memory_offset"].int64_param = output.target.offset
            content = b""  # clients count on an entry for each output
        response.raw_output_contents.append(content)
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
    model: str,
    outputs: tuple[tuple[str, int], ...],
    shape: tuple[int, int],
    where: tuple[str, str, str],
) -> bytes:
    """What many responses have in common, as protobuf: filling it in anew takes three times as long."""
    response = oip.ModelInferResponse(model_name=model, model_version=VERSION)
    for name, classes in outputs:
        if classes:
            response.outputs.add(name=name, datatype="BYTES", shape=(shape[0], classes))
        else:
            response.outputs.add(name=name, datatype="FP32", shape=shape)
    for key, value in zip(("worker", "engine", "precision"), where, strict=True):
        response.parameters[key].string_param = value
    content: bytes = response.SerializeToString()
    return content


def error_in_stream(asked: Asked, refusal: RefusalError) -> oip.ModelStreamInferResponse:
    """A stream goes on after a refusal, which therefore is a message."""
    _let_go(refusal)
    code = STATUS_CODES[refusal.reason].name
    failed = oip.ModelInferResponse(model_name=asked.model, id=asked.id)
    failed.parameters[FINAL_RESPONSE].bool_param = True
    if refusal.retry_after_s is not None:
        # What google.rpc.RetryInfo is in a status.
        failed.parameters["retry_after_ns"].int64_param = round(refusal.retry_after_s * 1e9)
    return oip.ModelStreamInferResponse(
        error_message=f"[{code}] {shorten(refusal.message)}", infer_response=failed
    )


def _content(output: Output, logits: bytes, classes: Sequence[str]) -> bytes:
    values = logits if output.name == LOGITS_NAME else softmax(logits, len(classes))
    return classification(values, output.classes, classes) if output.classes else values


def classification(values: bytes, count: int, classes: Sequence[str]) -> bytes:
    """The ``count`` highest of each row, highest first, as Triton writes them: VALUE:INDEX:LABEL."""
    rows = np.frombuffer(values, "<f4").reshape(-1, len(classes))
    best = (-rows).argsort(axis=1, kind="stable")[:, :count]
    return encoding.join(
        f"{row[index]:f}:{index}:{classes[index]}".encode()
        for row, indexes in zip(rows, best, strict=True)
        for index in indexes
    )


def softmax(logits: bytes, classes: int) -> bytes:
    """Probabilities of float32 logits [rows, classes], in the same layout."""
    values = np.frombuffer(logits, "<f4").reshape(-1, classes).astype(np.float64)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    content: bytes = probabilities.astype("<f4").tobytes()
    return content
