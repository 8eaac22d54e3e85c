"""Of a ModelInfer message the images, or a refusal that names what is wrong with them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.families import Interface
from rootserve.server.models import ENCODED_NAME, INPUT_NAME
from rootserve.server.pending import Datatype
from rootserve.server.wire.parse_outputs import RequestLimits, invalid
from rootserve.server.wire.shared_memory import REGION, Regions, Span
from rootserve.server.wire.words import listing, quote
from rootserve.server.workers import encoding

_VALUE_BYTES: dict[Datatype, int] = {"UINT8": 1, "FP32": 4}
_TYPED_CONTENTS: dict[Datatype, str] = {
    "UINT8": "uint_contents",
    "FP32": "fp32_contents",
    "BYTES": "bytes_contents",
}
# FP32 images are 0..1; conversions elsewhere may round a little past the ends.
_FP32_TOLERANCE = 1e-3


class Input(NamedTuple):
    """The images of a request: so many, as they are laid into a worker's memory."""

    rows: int
    datatype: Datatype
    content: bytes | memoryview


def check_values(datatype: Datatype, content: bytes | memoryview) -> None:
    """Check what of raw images their size does not tell.

    Raises:
        RefusalError: INVALID_REQUEST, if values are not what the network takes.
    """
    if datatype == "FP32":
        _check_range(content)


def parse_input(
    message: oip.ModelInferRequest, card: Interface, limits: RequestLimits, regions: Regions
) -> Input:
    """The images that ``message`` brings, checked against what ``card`` takes.

    Raises:
        RefusalError: INVALID_REQUEST, naming the tensor, what came and what was expected, or
            UNKNOWN_REGION.
    """
    position = _choose_input(message)
    tensor = message.inputs[position]
    shared = regions.span(tensor.name, tensor.parameters)
    if tensor.name == INPUT_NAME:
        return _parse_images(message, position, card, limits.max_rows, shared)
    return _parse_encoded(message, position, limits, shared)


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
    card: Interface,
    max_rows: int,
    shared: Span | None,
) -> Input:
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
    check_values(datatype, content)
    return Input(rows, datatype, content)


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


def _parse_rows(shape: tuple[int, ...], card: Interface, max_rows: int) -> int:
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
) -> Input:
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
    return Input(rows, "BYTES", content)


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


def _check_range(content: bytes | memoryview) -> None:
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
