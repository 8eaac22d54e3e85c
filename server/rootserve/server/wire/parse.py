"""From a ModelInfer message to a valid request, or a refusal that names what was wrong."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.core.reasons import Reason, RefusalError
from rootserve.server.dispatcher import InferenceRequest
from rootserve.server.models import (
    ENCODED_NAME,
    INPUT_NAME,
    VERSION,
    Model,
    ModelCard,
    Models,
)
from rootserve.server.wire.parse_outputs import (
    Output,
    RequestLimits,
    invalid,
    parse_number,
    parse_outputs,
)
from rootserve.server.wire.shared_memory import REGION, Regions, Span
from rootserve.server.wire.words import listing, quote
from rootserve.server.workers import encoding
from rootserve.server.workers.handle import Part
from rootserve.server.workers.messages import Datatype

_VALUE_BYTES: dict[Datatype, int] = {"UINT8": 1, "FP32": 4}
_TYPED_CONTENTS: dict[Datatype, str] = {
    "UINT8": "uint_contents",
    "FP32": "fp32_contents",
    "BYTES": "bytes_contents",
}
# FP32 images are 0..1; conversions elsewhere may round a little past the ends.
_FP32_TOLERANCE = 1e-3
_NO_REGIONS = Regions()
# Years: no deadline at all. gRPC gives calls without a timeout centuries.
_LONGEST_WAIT_S = 1e8


_LONGEST_ID = 4096


class Asked(NamedTuple):
    """What of a request its response repeats; cut where no answer can be meant by it."""

    model: str
    id: str

    @staticmethod
    def of(message: oip.ModelInferRequest) -> Asked:
        """Of ``message``, valid or not."""
        return Asked(message.model_name[:_LONGEST_ID], message.id[:_LONGEST_ID])


class ParsedRequest(NamedTuple):
    """A valid request and the outputs it wants, in the order it wants them."""

    inference: InferenceRequest
    outputs: tuple[Output, ...]


def find_model(models: Models, name: str, version: str) -> Model:
    """The served model called ``name``.

    Raises:
        RefusalError: UNKNOWN_MODEL when it is unknown, not served, or has no such version.
    """
    model = models.get(name)
    if model is None or not model.served:
        served = ", ".join(model.card.name for model in models.served())
        what = "no model is called" if model is None else "known but not served is"
        text = f"{what} {quote(name)}; {f'served: {served}' if served else 'no model is served'}"
        raise RefusalError(Reason.UNKNOWN_MODEL, text)
    if version not in ("", VERSION):
        text = f"model {name} has no version {quote(version)}; it has version {VERSION!r}"
        raise RefusalError(Reason.UNKNOWN_MODEL, text)
    return model


def parse_request(
    message: oip.ModelInferRequest,
    card: ModelCard,
    limits: RequestLimits,
    arrived_s: float,
    timeout_s: float | None,
    regions: Regions = _NO_REGIONS,
) -> ParsedRequest:
    """Check ``message`` against ``card``; ``timeout_s`` is what gRPC leaves it from ``arrived_s``.

    Raises:
        RefusalError: INVALID_REQUEST, naming the tensor, what came and what was expected, or
            UNKNOWN_REGION.
    """
    if len(message.id) > _LONGEST_ID:
        raise invalid(f"id: {len(message.id)} characters came, expected at most {_LONGEST_ID}")
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
    part = _parse_input(message, card, limits, deadline_s, regions)
    outputs = parse_outputs(message, card, part.rows, limits, regions)
    inference = InferenceRequest(card.name, part, arrived_s, deadline_s, priority)
    return ParsedRequest(inference, outputs)


def _parse_input(
    message: oip.ModelInferRequest,
    card: ModelCard,
    limits: RequestLimits,
    deadline_s: float,
    regions: Regions,
) -> Part:
    position = _choose_input(message)
    tensor = message.inputs[position]
    deadline_ns = 0 if deadline_s == math.inf else max(1, int(deadline_s * 1e9))
    shared = regions.span(tensor.name, tensor.parameters)
    if tensor.name == INPUT_NAME:
        rows, datatype, content = _parse_images(message, position, card, limits.max_rows, shared)
        return Part(rows, datatype, content, deadline_ns)
    rows, content = _parse_encoded(message, position, limits, shared)
    return Part(rows, "BYTES", content, deadline_ns)


def _choose_input(message: oip.ModelInferRequest) -> int:
    """Where the input is that counts.

    When both come it is images: perf_analyzer fills every input that a model has, with random text.
    """
    names = [tensor.name for tensor in message.inputs]
    for name in names:
        if name not in (INPUT_NAME, ENCODED_NAME):
            raise invalid(
                f"input {quote(name)} is unknown; expected {INPUT_NAME!r} or {ENCODED_NAME!r}"
            )
    if not names or len(set(names)) < len(names):
        came = listing(map(repr, names)) or "none"
        raise invalid(f"inputs: {came} came, expected one, {INPUT_NAME!r} or {ENCODED_NAME!r}")
    return names.index(INPUT_NAME if INPUT_NAME in names else ENCODED_NAME)


def _parse_images(
    message: oip.ModelInferRequest,
    position: int,
    card: ModelCard,
    max_rows: int,
    shared: Span | None,
) -> tuple[int, Datatype, bytes]:
    tensor = message.inputs[position]
    if tensor.datatype not in _VALUE_BYTES:
        raise invalid(
            f"tensor {INPUT_NAME}: datatype {quote(tensor.datatype)} came, expected UINT8 (0..255) or "
            "FP32 (0..1)"
        )
    datatype: Datatype = tensor.datatype
    rows = _parse_rows(tuple(tensor.shape), card, max_rows)
    expected = rows * card.pixels * _VALUE_BYTES[datatype]
    size, content = _content(message, position, datatype, shared, expected)
    if size != expected:
        raise invalid(
            f"tensor {INPUT_NAME}: {size} bytes came, expected {expected} for {datatype} "
            f"{list(tensor.shape)}"
        )
    if datatype == "FP32":
        _check_range(content)
    return rows, datatype, content


def _content(
    message: oip.ModelInferRequest,
    position: int,
    datatype: Datatype,
    shared: Span | None,
    most_shared: int,
) -> tuple[int, bytes]:
    """The size of an input's content and the content, which is not read from shared memory beyond a size."""
    tensor = message.inputs[position]
    raw = _raw_content(message, position)
    if shared is None:
        content = _typed_content(tensor, datatype) if raw is None else raw
        return len(content), content
    if raw is not None or _filled(tensor):
        raise invalid(f"tensor {tensor.name}: both shared memory and data came, expected one")
    return shared.size, shared.read() if shared.size <= most_shared else b""


def _raw_content(message: oip.ModelInferRequest, position: int) -> bytes | None:
    """The entry of raw_input_contents for this input; None if its contents are typed, or in shared memory."""
    raw = message.raw_input_contents
    if len(raw) == 0:
        return None
    inputs = message.inputs
    has_entry = [not (one.parameters and REGION in one.parameters) for one in inputs]
    if len(raw) != sum(has_entry):
        raise invalid(
            f"raw_input_contents has {len(raw)} entries, expected one per input: {sum(has_entry)}"
        )
    if not has_entry[position]:
        return None
    tensor = inputs[position]
    if _filled(tensor):
        raise invalid(
            f"tensor {tensor.name}: both raw_input_contents and typed contents came, expected one"
        )
    content: bytes = raw[sum(has_entry[:position])]  # each access copies: once
    return content


def _filled(tensor: oip.ModelInferRequest.InferInputTensor) -> list[str]:
    """The fields of typed contents in which there is something."""
    if not tensor.HasField("contents"):
        return []
    return [descriptor.name for descriptor, _ in tensor.contents.ListFields()]


def _parse_rows(shape: tuple[int, ...], card: ModelCard, max_rows: int) -> int:
    if len(shape) != 4 or shape[1:] != card.image:
        wanted = ", ".join(map(str, card.image))
        raise invalid(
            f"tensor {INPUT_NAME}: shape [{listing(shape)}] came, expected [rows, {wanted}] for {card.name}"
        )
    _check_rows(INPUT_NAME, shape[0], max_rows)
    return shape[0]


def _check_rows(tensor: str, rows: int, max_rows: int) -> None:
    if not 1 <= rows <= max_rows:
        raise invalid(f"tensor {tensor}: {rows} rows came, expected 1 to {max_rows}")


def _parse_encoded(
    message: oip.ModelInferRequest, position: int, limits: RequestLimits, shared: Span | None
) -> tuple[int, bytes]:
    """Rows, and the files as they lie in a raw BYTES tensor; what is in them, the worker sees."""
    tensor = message.inputs[position]
    if tensor.datatype != "BYTES":
        raise invalid(
            f"tensor {ENCODED_NAME}: datatype {quote(tensor.datatype)} came, expected BYTES (JPEG or PNG)"
        )
    shape = tuple(tensor.shape)
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise invalid(
            f"tensor {ENCODED_NAME}: shape [{listing(shape)}] came, expected [rows] or [rows, 1]"
        )
    rows = shape[0]
    _check_rows(ENCODED_NAME, rows, limits.max_rows)
    most = rows * (encoding.LENGTH_BYTES + limits.max_image_bytes)
    size, content = _content(message, position, "BYTES", shared, most)
    if size != len(content):
        raise invalid(
            f"tensor {ENCODED_NAME}: {size} bytes came, expected at most {most} for {rows} rows"
        )
    elements = 0
    try:
        for start, end in encoding.spans(content, 0, len(content)):
            _check_file(elements, content[start : min(end, start + len(encoding.PNG_SIGNATURE))])
            if end - start > limits.max_image_bytes:
                raise invalid(
                    f"tensor {ENCODED_NAME}: row {elements}: {end - start} bytes came, expected at "
                    f"most {limits.max_image_bytes}"
                )
            elements += 1
            if elements > rows:
                break
    except ValueError as error:
        raise invalid(f"tensor {ENCODED_NAME}: row {elements}: {error}") from None
    if elements != rows:
        raise invalid(
            f"tensor {ENCODED_NAME}: {'fewer' if elements < rows else 'more'} elements came than the "
            f"{rows} of shape [{listing(shape)}]"
        )
    return rows, content


def _check_file(row: int, beginning: bytes) -> None:
    if not beginning.startswith((encoding.JPEG_SIGNATURE, encoding.PNG_SIGNATURE)):
        came = f"a file that begins with {beginning.hex(' ')}" if beginning else "no bytes"
        raise invalid(f"tensor {ENCODED_NAME}: row {row}: {came} came, expected JPEG or PNG")


def _typed_content(tensor: oip.ModelInferRequest.InferInputTensor, datatype: Datatype) -> bytes:
    field = _TYPED_CONTENTS[datatype]
    filled = _filled(tensor)
    if filled != [field]:
        came = ", ".join(filled) or "no data"
        raise invalid(
            f"tensor {tensor.name}: {came} came, expected raw_input_contents or {field} for {datatype}"
        )
    if datatype == "BYTES":
        return encoding.join(tensor.contents.bytes_contents)
    if datatype == "FP32":
        return np.asarray(tensor.contents.fp32_contents, "<f4").tobytes()
    values = np.asarray(tensor.contents.uint_contents, np.uint32)
    if values.max(initial=0) > 255:
        raise invalid(f"tensor {INPUT_NAME}: value {values.max()} came, expected 0..255 for UINT8")
    return values.astype(np.uint8).tobytes()


def _check_range(content: bytes) -> None:
    values = np.frombuffer(content, "<f4")
    low, high = float(values.min()), float(values.max())
    if math.isnan(low):  # the minimum of values with a NaN is NaN
        count = int(np.isnan(values).sum())
        raise invalid(f"tensor {INPUT_NAME}: {count} values are NaN, expected 0..1 for FP32")
    if low < -_FP32_TOLERANCE or high > 1 + _FP32_TOLERANCE:
        raise invalid(
            f"tensor {INPUT_NAME}: values from {low:g} to {high:g} came, expected 0..1 for FP32 "
            "(the model normalises them itself)"
        )


def _parse_time(message: oip.ModelInferRequest, name: str, unit_s: float) -> float:
    """The parameter ``name`` in seconds; infinite when it is absent or, as in Triton, 0."""
    value = parse_number(message.parameters, name)
    return value * unit_s if value else math.inf


def _parse_priority(message: oip.ModelInferRequest, limits: RequestLimits) -> int:
    """The parameter ``priority``; the default when it is absent or, as in Triton, 0."""
    value = parse_number(message.parameters, "priority")
    if not value:
        return limits.default_priority
    if value != int(value) or value > limits.priority_levels:
        raise invalid(
            f"parameter priority: {value:g} came, expected a whole number from 1, the highest, to "
            f"{limits.priority_levels}, or 0 for the default"
        )
    return int(value)
