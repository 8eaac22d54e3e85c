"""From an answer to a response."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.models import LOGITS_NAME
from rootserve.server.pending import Answer, Asked, Output, Pending, Timeline
from rootserve.server.refusals import RefusalError
from rootserve.server.wire.forms import Known
from rootserve.server.wire.protobuf import LENGTH_DELIMITED, delimited, key, varint
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


def asked_of(message: oip.ModelInferRequest | Known) -> Asked:
    """What a response to ``message``, valid or not, repeats; cut where no answer can be meant by it."""
    return Asked(message.model_name[:LONGEST_ID], message.id[:LONGEST_ID])


def write_response(pending: Pending, answer: Answer, *, streamed: bool = False) -> bytes:
    """What :func:`build_response` builds, as it is sent; ``streamed``, as one response of a stream.

    Nearly all of it is the same for many responses, and is not made anew.

    Raises:
        RefusalError: as there.
    """
    timeline = answer.timeline
    if timeline.variant or any(one.target is not None for one in pending.outputs):
        response = build_response(pending, answer)
        if streamed:
            response.parameters[FINAL_RESPONSE].bool_param = True
        content: bytes = response.SerializeToString()
    else:
        content = _write(pending, answer, streamed=streamed)
    return delimited(_INFER_RESPONSE, content) if streamed else content


# Fields of ModelStreamInferResponse, ModelInferResponse, of an entry of its parameters, and of its value.
_INFER_RESPONSE = 2
_ID, _PARAMETERS, _RAW_CONTENTS = 3, 4, 6
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_BOOL, _INT64 = 1, 2


def _write(pending: Pending, answer: Answer, *, streamed: bool) -> bytes:
    timeline = answer.timeline
    parts = [_beginning(pending, timeline)]
    if pending.asked.id:
        parts.append(delimited(_ID, pending.asked.id.encode()))
    parts += [
        delimited(_RAW_CONTENTS, _content(output, answer.logits, pending.classes))
        for output in pending.outputs
    ]
    parts.append(_number(_QUEUE, timeline.queue_ns))
    parts.append(_number(_BATCH_WAIT, timeline.batch_wait_ns))
    parts.append(_number(_COMPUTE, timeline.compute_ns))
    if timeline.decode_ns:
        parts.append(_number(_DECODE, timeline.decode_ns))
    parts.append(_number(_TOTAL, timeline.total_ns))
    parts.append(_number(_BATCH_ROWS, timeline.batch_rows))
    if streamed:
        parts.append(_FINAL)
    return b"".join(parts)


def _parameter(name: str) -> bytes:
    """The key of an entry of the parameters."""
    return delimited(_ENTRY_KEY, name.encode())


_QUEUE, _BATCH_WAIT, _COMPUTE = map(_parameter, ("queue_ns", "batch_wait_ns", "compute_ns"))
_DECODE, _TOTAL, _BATCH_ROWS = map(_parameter, ("decode_ns", "total_ns", "batch_rows"))
_FINAL = delimited(
    _PARAMETERS,
    _parameter(FINAL_RESPONSE) + delimited(_ENTRY_VALUE, key(_BOOL) + varint(1)),
)
_PARAMETERS_KEY, _VALUE_KEY, _INT64_KEY = (
    key(_PARAMETERS, LENGTH_DELIMITED)[0],
    key(_ENTRY_VALUE, LENGTH_DELIMITED)[0],
    key(_INT64)[0],
)


def _number(name: bytes, value: int) -> bytes:
    """An entry of the parameters; all lengths in it take one byte."""
    number = varint(value)
    length = len(number) + 1
    return b"%c%c%b%c%c%c%b" % (
        _PARAMETERS_KEY,
        len(name) + 2 + length,
        name,
        _VALUE_KEY,
        length,
        _INT64_KEY,
        number,
    )


def build_response(pending: Pending, answer: Answer) -> oip.ModelInferResponse:
    """The response: raw contents, but for what goes to shared memory; the timeline in the parameters.

    :func:`write_response` writes the same faster, where it is as most are.

    Raises:
        RefusalError: if shared memory that was to hold an output has shrunk.
    """
    timeline = answer.timeline
    response = oip.ModelInferResponse.FromString(_beginning(pending, timeline))
    if pending.asked.id:
        response.id = pending.asked.id
    for position, output in enumerate(pending.outputs):
        content = _content(output, answer.logits, pending.classes)
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


def _beginning(pending: Pending, timeline: Timeline) -> bytes:
    """What the response has in common with those of others."""
    # As a named tuple it would be made in half a dozen calls.
    who = tuple.__new__(
        _Who,
        (
            timeline.worker,
            timeline.engine,
            timeline.precision,
            timeline.version,
            timeline.weights,
            timeline.generation,
        ),
    )
    classes = len(pending.classes)
    shapes = tuple([(one.name, min(one.classes, classes)) for one in pending.outputs])
    return _constant_part(pending.asked.model, shapes, (pending.request.rows, classes), who)


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
    for name in ("worker", "engine", "precision", "weights"):
        response.parameters[name].string_param = getattr(who, name)
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
        for name, value in promise_metadata(refusal.promise).items():
            failed.parameters[name].string_param = value
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
