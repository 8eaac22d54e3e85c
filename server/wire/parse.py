"""From a ModelInfer message to a valid request, or a refusal that names what was wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tritonclient.grpc import service_pb2 as oip

from server.core.reasons import Reason, RefusalError
from server.dispatcher import InferenceRequest
from server.models import (
    ENCODED_NAME,
    INPUT_NAME,
    LOGITS_NAME,
    PROBABILITIES_NAME,
    VERSION,
    Model,
    ModelCard,
    Models,
)
from server.workers import encoding
from server.workers.handle import Part
from server.workers.messages import Datatype

_VALUE_BYTES: dict[Datatype, int] = {"UINT8": 1, "FP32": 4}
_TYPED_CONTENTS: dict[Datatype, str] = {
    "UINT8": "uint_contents",
    "FP32": "fp32_contents",
    "BYTES": "bytes_contents",
}
# FP32 images are 0..1; conversions elsewhere may round a little past the ends.
_FP32_TOLERANCE = 1e-3
# Years: no deadline at all. gRPC gives calls without a timeout centuries.
_LONGEST_WAIT_S = 1e8


class ParsedRequest(NamedTuple):
    """A valid request and the names of the outputs it wants, in the order it wants them."""

    inference: InferenceRequest
    outputs: tuple[str, ...]


def find_model(models: Models, name: str, version: str) -> Model:
    """The served model called ``name``.

    Raises:
        RefusalError: UNKNOWN_MODEL when it is unknown, not served, or has no such version.
    """
    model = models.get(name)
    if model is None or not model.served:
        served = ", ".join(model.card.name for model in models.served())
        what = "no model is called" if model is None else "known but not served is"
        raise RefusalError(Reason.UNKNOWN_MODEL, f"{what} {name!r}; served: {served}")
    if version not in ("", VERSION):
        text = f"model {name} has no version {version!r}; it has version {VERSION!r}"
        raise RefusalError(Reason.UNKNOWN_MODEL, text)
    return model


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may ask for."""

    max_rows: int
    priority_levels: int
    default_priority: int
    max_image_bytes: int = 8 * 2**20
    """Of one picture that comes encoded."""


def parse_request(
    message: oip.ModelInferRequest,
    card: ModelCard,
    limits: RequestLimits,
    arrived_s: float,
    timeout_s: float | None,
) -> ParsedRequest:
    """Check ``message`` against ``card``; ``timeout_s`` is what gRPC leaves it from ``arrived_s``.

    Raises:
        RefusalError: INVALID_REQUEST, naming the tensor, what came and what was expected.
    """
    outputs = _parse_outputs(message)
    priority = limits.default_priority
    wait_s = math.inf if timeout_s is None else timeout_s
    if message.parameters:
        priority = _parse_priority(message, limits)
        wait_s = min(
            wait_s,
            _parse_time(message, "timeout", 1e-6),
            _parse_time(message, "deadline_ms", 1e-3),
        )
    deadline_s = arrived_s + wait_s if wait_s < _LONGEST_WAIT_S else math.inf
    part = _parse_input(message, card, limits, deadline_s)
    inference = InferenceRequest(card.name, part, arrived_s, deadline_s, priority)
    return ParsedRequest(inference, outputs)


def _invalid(text: str) -> RefusalError:
    return RefusalError(Reason.INVALID_REQUEST, text)


def _parse_outputs(message: oip.ModelInferRequest) -> tuple[str, ...]:
    if not message.outputs:
        return (LOGITS_NAME,)
    names = tuple(output.name for output in message.outputs)
    for name in names:
        if name not in (LOGITS_NAME, PROBABILITIES_NAME):
            raise _invalid(
                f"output {name!r} is unknown; expected {LOGITS_NAME} or {PROBABILITIES_NAME}"
            )
    return names


def _parse_input(
    message: oip.ModelInferRequest, card: ModelCard, limits: RequestLimits, deadline_s: float
) -> Part:
    position = _choose_input(message)
    tensor = message.inputs[position]
    deadline_ns = 0 if deadline_s == math.inf else max(1, int(deadline_s * 1e9))
    if tensor.name == INPUT_NAME:
        rows, datatype, content = _parse_images(message, position, card, limits.max_rows)
        return Part(rows, datatype, content, deadline_ns)
    rows, content = _parse_encoded(message, position, limits)
    return Part(rows, "BYTES", content, deadline_ns)


def _choose_input(message: oip.ModelInferRequest) -> int:
    """Where the input is that counts.

    When both come it is images: perf_analyzer fills every input that a model has, with random text.
    """
    names = [tensor.name for tensor in message.inputs]
    for name in names:
        if name not in (INPUT_NAME, ENCODED_NAME):
            raise _invalid(
                f"input {name!r} is unknown; expected {INPUT_NAME!r} or {ENCODED_NAME!r}"
            )
    if not names or len(set(names)) < len(names):
        came = ", ".join(map(repr, names)) or "none"
        raise _invalid(f"inputs: {came} came, expected one, {INPUT_NAME!r} or {ENCODED_NAME!r}")
    return names.index(INPUT_NAME if INPUT_NAME in names else ENCODED_NAME)


def _parse_images(
    message: oip.ModelInferRequest, position: int, card: ModelCard, max_rows: int
) -> tuple[int, Datatype, bytes]:
    tensor = message.inputs[position]
    if tensor.datatype not in _VALUE_BYTES:
        raise _invalid(
            f"tensor {INPUT_NAME}: datatype {tensor.datatype!r} came, expected UINT8 (0..255) or "
            "FP32 (0..1)"
        )
    datatype: Datatype = tensor.datatype
    rows = _parse_rows(tuple(tensor.shape), card, max_rows)
    raw = _raw_content(message, position)
    content = _typed_content(tensor, datatype) if raw is None else raw
    expected = rows * card.pixels * _VALUE_BYTES[datatype]
    if len(content) != expected:
        raise _invalid(
            f"tensor {INPUT_NAME}: {len(content)} bytes came, expected {expected} for {datatype} "
            f"{list(tensor.shape)}"
        )
    if datatype == "FP32":
        _check_range(content)
    return rows, datatype, content


def _raw_content(message: oip.ModelInferRequest, position: int) -> bytes | None:
    """The entry of raw_input_contents for this input; None if the tensor's contents are typed."""
    raw = message.raw_input_contents
    if len(raw) == 0:
        return None
    if len(raw) != len(message.inputs):
        raise _invalid(
            f"raw_input_contents has {len(raw)} entries, expected one per input: {len(message.inputs)}"
        )
    tensor = message.inputs[position]
    if tensor.HasField("contents"):
        raise _invalid(
            f"tensor {tensor.name}: both raw_input_contents and typed contents came, expected one"
        )
    content: bytes = raw[position]  # each access copies: once
    return content


def _parse_rows(shape: tuple[int, ...], card: ModelCard, max_rows: int) -> int:
    if len(shape) != 4 or shape[1:] != card.image:
        wanted = ", ".join(map(str, card.image))
        raise _invalid(
            f"tensor {INPUT_NAME}: shape {list(shape)} came, expected [rows, {wanted}] for {card.name}"
        )
    _check_rows(INPUT_NAME, shape[0], max_rows)
    return shape[0]


def _check_rows(tensor: str, rows: int, max_rows: int) -> None:
    if not 1 <= rows <= max_rows:
        raise _invalid(f"tensor {tensor}: {rows} rows came, expected 1 to {max_rows}")


def _parse_encoded(
    message: oip.ModelInferRequest, position: int, limits: RequestLimits
) -> tuple[int, bytes]:
    """Rows, and the files as they lie in a raw BYTES tensor; what is in them, the worker sees."""
    tensor = message.inputs[position]
    if tensor.datatype != "BYTES":
        raise _invalid(
            f"tensor {ENCODED_NAME}: datatype {tensor.datatype!r} came, expected BYTES (JPEG or PNG)"
        )
    shape = tuple(tensor.shape)
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise _invalid(
            f"tensor {ENCODED_NAME}: shape {list(shape)} came, expected [rows] or [rows, 1]"
        )
    rows = shape[0]
    _check_rows(ENCODED_NAME, rows, limits.max_rows)
    raw = _raw_content(message, position)
    content = _typed_content(tensor, "BYTES") if raw is None else raw
    elements = 0
    try:
        for start, end in encoding.spans(content, 0, len(content)):
            _check_file(elements, content[start : min(end, start + len(encoding.PNG_SIGNATURE))])
            if end - start > limits.max_image_bytes:
                raise _invalid(
                    f"tensor {ENCODED_NAME}: row {elements}: {end - start} bytes came, expected at "
                    f"most {limits.max_image_bytes}"
                )
            elements += 1
            if elements > rows:
                break
    except ValueError as error:
        raise _invalid(f"tensor {ENCODED_NAME}: row {elements}: {error}") from None
    if elements != rows:
        raise _invalid(
            f"tensor {ENCODED_NAME}: {'fewer' if elements < rows else 'more'} elements came than the "
            f"{rows} of shape {list(shape)}"
        )
    return rows, content


def _check_file(row: int, beginning: bytes) -> None:
    if not beginning.startswith((encoding.JPEG_SIGNATURE, encoding.PNG_SIGNATURE)):
        came = f"a file that begins with {beginning.hex(' ')}" if beginning else "no bytes"
        raise _invalid(f"tensor {ENCODED_NAME}: row {row}: {came} came, expected JPEG or PNG")


def _typed_content(tensor: oip.ModelInferRequest.InferInputTensor, datatype: Datatype) -> bytes:
    field = _TYPED_CONTENTS[datatype]
    filled = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if filled != [field]:
        came = ", ".join(filled) or "no data"
        raise _invalid(
            f"tensor {tensor.name}: {came} came, expected raw_input_contents or {field} for {datatype}"
        )
    if datatype == "BYTES":
        return encoding.join(tensor.contents.bytes_contents)
    if datatype == "FP32":
        return np.asarray(tensor.contents.fp32_contents, "<f4").tobytes()
    values = np.asarray(tensor.contents.uint_contents, np.uint32)
    if values.max(initial=0) > 255:
        raise _invalid(f"tensor {INPUT_NAME}: value {values.max()} came, expected 0..255 for UINT8")
    return values.astype(np.uint8).tobytes()


def _check_range(content: bytes) -> None:
    values = np.frombuffer(content, "<f4")
    low, high = float(values.min()), float(values.max())
    if math.isnan(low):  # the minimum of values with a NaN is NaN
        count = int(np.isnan(values).sum())
        raise _invalid(f"tensor {INPUT_NAME}: {count} values are NaN, expected 0..1 for FP32")
    if low < -_FP32_TOLERANCE or high > 1 + _FP32_TOLERANCE:
        raise _invalid(
            f"tensor {INPUT_NAME}: values from {low:g} to {high:g} came, expected 0..1 for FP32 "
            "(the model normalises them itself)"
        )


def _parse_time(message: oip.ModelInferRequest, name: str, unit_s: float) -> float:
    """The parameter ``name`` in seconds; infinite when it is absent or, as in Triton, 0."""
    value = _parse_number(message, name)
    return value * unit_s if value else math.inf


def _parse_priority(message: oip.ModelInferRequest, limits: RequestLimits) -> int:
    """The parameter ``priority``; the default when it is absent or, as in Triton, 0."""
    value = _parse_number(message, "priority")
    if not value:
        return limits.default_priority
    if value != int(value) or value > limits.priority_levels:
        raise _invalid(
            f"parameter priority: {value:g} came, expected a whole number from 1, the highest, to "
            f"{limits.priority_levels}, or 0 for the default"
        )
    return int(value)


def _parse_number(message: oip.ModelInferRequest, name: str) -> float:
    if name not in message.parameters:
        return 0.0
    parameter = message.parameters[name]
    choice = parameter.WhichOneof("parameter_choice")
    value = getattr(parameter, choice) if choice else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _invalid(f"parameter {name}: {value!r} came, expected a number that is not negative")
    return value
