"""Of a ModelInfer message what it asks of the variant that computes it: how accurate, and one of which."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tritonclient.grpc import service_pb2 as oip

from rootserve.server.families import VirtualModel, accuracy_of
from rootserve.server.models import Model
from rootserve.server.wire.parse_outputs import invalid
from rootserve.server.wire.words import listing, quote

FLOOR = "accuracy_floor"
VARIANTS = "variants"


class Wanted(NamedTuple):
    """The least accuracy, 0..1, and the variants to choose from; none: all of them."""

    floor: float = 0.0
    allowed: frozenset[str] = frozenset()


ANY = Wanted()


def parse_choice(message: oip.ModelInferRequest, model: Model | VirtualModel) -> Wanted:
    """What the parameters of ``message``, which is for ``model``, ask for.

    Raises:
        RefusalError: INVALID_REQUEST, if a parameter is not what it must be, or no variant that is served
            is what is asked for.
    """
    parameters = message.parameters
    if FLOOR not in parameters and VARIANTS not in parameters:
        return ANY
    floor = _parse_floor(parameters) if FLOOR in parameters else 0.0
    allowed = frozenset[str]()
    if VARIANTS in parameters:
        if isinstance(model, Model):
            raise invalid(
                f"parameter {VARIANTS}: came for {model.card.name}, expected it for a family that is "
                "served as one model, such as NAME-auto"
            )
        allowed = _parse_variants(parameters, model)
    _check_floor(floor, allowed, model)
    return Wanted(floor, allowed)


def _parse_floor(parameters: Mapping[str, Any]) -> float:
    value = _value(parameters, FLOOR)
    expected = "expected a number from 0 to 1"
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        came = quote(value) if isinstance(value, str) else value
        raise invalid(f"parameter {FLOOR}: {came} came, {expected}")
    if not 0 <= value <= 1:
        raise invalid(f"parameter {FLOOR}: {value} came, {expected}")
    return float(value)


def _parse_variants(parameters: Mapping[str, Any], model: VirtualModel) -> frozenset[str]:
    value = _value(parameters, VARIANTS)
    served = [member.card.name for member in model.members]
    expected = f"expected some of {', '.join(served)}, with commas between"
    if not isinstance(value, str):
        raise invalid(f"parameter {VARIANTS}: {value} came, {expected}")
    names = [name for part in value.split(",") if (name := part.strip())]
    if not names:
        raise invalid(f"parameter {VARIANTS}: {quote(value)} came, {expected}")
    if unknown := [name for name in names if name not in served]:
        raise invalid(
            f"parameter {VARIANTS}: {listing(map(quote, unknown))} came, which {model.name} does not "
            f"choose from; {expected}"
        )
    return frozenset(names)


def _check_floor(floor: float, allowed: frozenset[str], model: Model | VirtualModel) -> None:
    """Refuse a floor that nothing reaches.

    Raises:
        RefusalError: naming the highest there is.
    """
    if isinstance(model, Model):
        name, accuracy = model.card.name, model.card.accuracy
        if floor <= (accuracy or 0.0):
            return
        has = "has no known accuracy" if accuracy is None else f"has {accuracy}"
        raise invalid(f"parameter {FLOOR}: {floor} came, but {name} {has}")
    members = [one for one in model.members if not allowed or one.card.name in allowed]
    best = max(members, key=accuracy_of)
    if floor > accuracy_of(best):
        among = f" of the variants {', '.join(sorted(allowed))}" if allowed else ""
        raise invalid(
            f"parameter {FLOOR}: {floor} came, expected at most {accuracy_of(best)}, the highest "
            f"that is served{among} ({best.card.name})"
        )


def _value(parameters: Mapping[str, Any], name: str) -> object:
    choice = parameters[name].WhichOneof("parameter_choice")
    return getattr(parameters[name], choice) if choice else None
