"""From an answer to a response."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.models import LOGITS_NAME
from rootserve.server.pending import Answer, Asked, Output, Pending
from rootserve.server.refusals import RefusalError
from rootserve.server.wire.refuse import STATUS_CODES, let_go, promise_metadata
from rootserve.server.wire.words import shorten
from rootserve.server.workers import encoding

FINAL_RESPONSE = "triton_final_response"
"""Streamed: whether a response is the last one to its request, which every one is here."""
LONGEST_ID = 4096
"""Characters of a request's id."""


class _Who(NamedTuple):
    """Who computed an answer, with what and with which weights; as in the timeline."""

    worker: str
    engine: str
    precision: str
    version: str
    weights: str
    generation: int


def asked_of(message: oip.ModelInferRequest) -> Asked:
    """What a response to ``message``, valid or not, repeats; cut where no answer can be meant by it."""
    return Asked(message.model_name[:LONGEST_ID], message.id[:LONGEST_ID])


def build_response(pending: Pending, answer: Answer) -> oip.ModelInferResponse:
    """The response: raw contents, but for what goes to shared memory; the timeline in the parameters.

    Raises:
        RefusalError: if shared memory that was to hold an output has shrunk.
    """
    asked, outputs, classes = pending.asked, pending.outputs, pending.classes
    timeline = answer.timeline
    rows = pending.request.rows
    who = _Who(
        timeline.worker,
        timeline.engine,
        timeline.precision,
        timeline.version,
        timeline.weights,
        timeline.generation,
    )
    shapes = tuple((one.name, min(one.classes, len(classes))) for one in outputs)
    response = oip.ModelInferResponse.FromString(
        _constant_part(asked.model, shapes, (rows, len(classes)), who)
    )
    if asked.id:
        response.id = asked.id
    for position, output in enumerate(outputs):
        content = _content(output, answer.logits, classes)
        if output.target is not None:
            output.target.write(content)
            parameters = response.outputs[position].parameters
            parameters["shared_memory_region"].string_param = output.target.region_name
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
    if timeline.variant:
        parameters["variant"].string_param = timeline.variant
        if timeline.accuracy is not None:
            parameters["accuracy"].double_param = timeline.accuracy
        if timeline.predicted_ns:
            parameters["predicted_ns"].int64_param = timeline.predicted_ns
    return response


@functools.lru_cache(maxsize=1024)
def _constant_part(
    model: str,
    outputs: tuple[tuple[str, int], ...],
    shape: tuple[int, int],
    who: _Who,
) -> bytes:
    """What many responses have in common, as protobuf: filling it in anew takes three times as long."""
    response = oip.ModelInferResponse(model_name=model, model_version=who.version)
    for name, classes in outputs:
        if classes:
            response.outputs.add(name=name, datatype="BYTES", shape=(shape[0], classes))
        else:
            response.outputs.add(name=name, datatype="FP32", shape=shape)
    for key in ("worker", "engine", "precision", "weights"):
        response.parameters[key].string_param = getattr(who, key)
    response.parameters["generation"].int64_param = who.generation
    content: bytes = response.SerializeToString()
    return content


def error_in_stream(asked: Asked, refusal: RefusalError) -> oip.ModelStreamInferResponse:
    """A stream goes on after a refusal, which therefore is a message."""
    let_go(refusal)
    code = STATUS_CODES[refusal.reason].name
    failed = oip.ModelInferResponse(model_name=asked.model, id=asked.id)
    failed.parameters[FINAL_RESPONSE].bool_param = True
    if refusal.retry_after_s is not None:
        # What google.rpc.RetryInfo is in a status.
        failed.parameters["retry_after_ns"].int64_param = round(refusal.retry_after_s * 1e9)
    if refusal.promise is not None:
        # What google.rpc.ErrorInfo is in a status.
        failed.parameters["reason"].string_param = refusal.reason.name
        for key, value in promise_metadata(refusal.promise).items():
            failed.parameters[key].string_param = value
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
