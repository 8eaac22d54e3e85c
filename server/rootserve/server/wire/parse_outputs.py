"""Of a ModelInfer message the outputs that it wants, and parameters: numbers, times, the priority."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2 as oip

from rootserve.server.families import Interface
from rootserve.server.models import LOGITS_NAME, PROBABILITIES_NAME
from rootserve.server.pending import Output
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.shared_memory import Regions
from rootserve.server.wire.words import quote


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may ask for."""

    max_rows: int
    priority_levels: int
    default_priority: int
    max_image_bytes: int = 8 * 2**20
    """Of one picture that comes encoded."""
    listed_outputs: tuple[str, ...] = (LOGITS_NAME,)
    """Those of the metadata, all of which a request gets that names none."""


def parse_outputs(
    message: oip.ModelInferRequest,
    card: Interface,
    rows: int,
    limits: RequestLimits,
    regions: Regions,
) -> tuple[Output, ...]:
    """The outputs that ``message`` wants of ``rows``; all that are listed if it names none.

    Raises:
        RefusalError: INVALID_REQUEST or UNKNOWN_REGION.
    """
    if not message.outputs:
        return tuple(Output(name) for name in limits.listed_outputs)
    outputs: dict[str, Output] = {}
    for tensor in message.outputs:
        name = tensor.name
        if name not in (LOGITS_NAME, PROBABILITIES_NAME):
            raise invalid(
                f"output {quote(name)} is unknown; expected {LOGITS_NAME} or {PROBABILITIES_NAME}"
            )
        if name in outputs:
            raise invalid(f"output {name!r} came twice, expected each one once")
        outputs[name] = (
            _parse_output(tensor, card, rows, regions) if tensor.parameters else Output(name)
        )
    return tuple(outputs.values())


def _parse_output(
    tensor: oip.ModelInferRequest.InferRequestedOutputTensor,
    card: Interface,
    rows: int,
    regions: Regions,
) -> Output:
    """The output as its parameters want it."""
    name = tensor.name
    classes = parse_number(tensor.parameters, "classification", f"output {name}: ")
    if classes != int(classes):
        raise invalid(f"output {name}: classification {classes:g} came, expected a whole number")
    classes = min(int(classes), len(card.classes))
    target = regions.span(name, tensor.parameters)
    if target is not None:
        if classes:
            raise invalid(
                f"output {name}: classification and shared memory came, expected one of them"
            )
        expected = rows * len(card.classes) * 4
        if target.size < expected:
            raise invalid(
                f"output {name}: shared memory of {target.size} bytes came, expected at least "
                f"{expected} for {rows} rows"
            )
    return Output(name, classes, target)


def parse_number(parameters: Mapping[str, Any], name: str, where: str = "parameter ") -> float:
    """The parameter ``name``, 0 when it is absent.

    Raises:
        RefusalError: if it is no number from 0 on.
    """
    if name not in parameters:
        return 0
    choice = parameters[name].WhichOneof("parameter_choice")
    value = getattr(parameters[name], choice) if choice else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        came = quote(value) if isinstance(value, str) else value
        raise invalid(f"{where}{name}: {came} came, expected a number that is not negative")
    return value


def invalid(text: str) -> RefusalError:
    """What says of a request that ``text`` is wrong with it."""
    return RefusalError(Reason.INVALID_REQUEST, text)


def parse_time(
    message: oip.ModelInferRequest, name: str, unit_s: float, longest_s: float = math.inf
) -> float:
    """The parameter ``name`` in seconds; infinite when it is absent or, as in Triton, 0.

    Raises:
        RefusalError: INVALID_REQUEST, also for a time over ``longest_s``, which would be a time of day.
    """
    value = parse_number(message.parameters, name)
    if value * unit_s > longest_s:
        raise invalid(
            f"parameter {name}: {value:.16g} came, expected at most {longest_s / unit_s:.16g}, counted from "
            "the arrival of the request; 0, or none, for no deadline"
        )
    return value * unit_s if value else math.inf


def parse_priority(message: oip.ModelInferRequest, limits: RequestLimits) -> int:
    """The parameter ``priority``; the default when it is absent or, as in Triton, 0.

    Raises:
        RefusalError: INVALID_REQUEST.
    """
    value = parse_number(message.parameters, "priority")
    if not value:
        return limits.default_priority
    if value != int(value) or value > limits.priority_levels:
        raise invalid(
            f"parameter priority: {value:g} came, expected a whole number from 1, the highest, to "
            f"{limits.priority_levels}, or 0 for the default"
        )
    return int(value)
