"""A model as JSON, and back: every field is checked, and what is refused is named with what was expected."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from fractions import Fraction
from typing import Any, cast, get_args

from rootmodels.family import Channels, Topology
from rootmodels.model import Model
from rootmodels.model_graph import graph_content, read_graph

FORMAT = 1
"""Of what is written here; read is this one alone."""

_LONGEST_NAME = 100
_LONGEST_TEXT = 1000
_MOST_CLASSES = 65_536
_IMAGE_SIZES = (16, 1024)
_LARGEST_COUNT = 2**40
_LEAST_CROP = 0.25
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_OPTIONAL = {"crop", "family", "topology", "degree", "accuracy", "test_images", "tested_on"}


def is_model_name(name: str) -> bool:
    """Whether a model may be called so: a name, and never a path."""
    return len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None


def write_content(model: Model) -> str:
    """``model`` as JSON."""
    content = {
        "format": FORMAT,
        **{one.name: getattr(model, one.name) for one in fields(model)},
        "crop": [model.crop.numerator, model.crop.denominator],
        "layers": graph_content(model.layers),
    }
    return json.dumps(content, allow_nan=False)


def read_content(text: str) -> Model:
    """The model that ``text`` tells of.

    Raises:
        ValueError: naming the first field that is wrong, what it is and what was expected.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"it is {_shown(content)}, expected an object")
    known = {"format", *(one.name for one in fields(Model))}
    for name in content:
        if name not in known:
            raise ValueError(
                f"field {_shown(name)} is not known; expected {', '.join(sorted(known))}"
            )
    if content.get("format") != FORMAT:
        raise ValueError(f"format is {_shown(content.get('format'))}, expected {FORMAT}")
    for name in sorted(known - _OPTIONAL - {"provenance"}):
        if name not in content:
            raise ValueError(f"it has no {name}")
    return _model(content)


def _model(content: Mapping[str, Any]) -> Model:
    name = _name("name", content["name"])
    size = _whole("image_size", content["image_size"], *_IMAGE_SIZES)
    classes = _classes(content["classes"])
    provenance = content.get("provenance", {})
    if not isinstance(provenance, dict):
        raise ValueError(f"provenance is {_shown(provenance)}, expected an object")
    return Model(
        name=name,
        mean=_channels("mean", content["mean"], -1e4, 1e4),
        std=_channels("std", content["std"], 1e-3, 1e4),
        image_size=size,
        classes=classes,
        crop=_crop(content.get("crop", [1, 1])),
        family=_name("family", content.get("family") or name),
        topology=_topology(content.get("topology", "orig")),
        degree=_whole("degree", content.get("degree", 1), 1, 1024),
        accuracy=_accuracy(content.get("accuracy")),
        test_images=_whole("test_images", content.get("test_images", 0), 0, _LARGEST_COUNT),
        tested_on=_text("tested_on", content.get("tested_on", "")),
        provenance=provenance,
        layers=read_graph(content["layers"], size, len(classes)),
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has a number {name}, expected finite ones")


def _name(field: str, value: object) -> str:
    if not isinstance(value, str) or not is_model_name(value):
        raise ValueError(
            f"{field} is {_shown(value)}, expected up to {_LONGEST_NAME} small letters, digits, '-', '.' "
            "and '_', with a letter or digit first"
        )
    return value


def _whole(field: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        text = f"{field} is {_shown(value)}, expected a whole number of {least} to {most}"
        raise ValueError(text)
    return value


def _is_number(value: object, least: float, most: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and least <= cast("float", value) <= most


def _channels(field: str, value: object, least: float, most: float) -> Channels:
    right = isinstance(value, list) and len(value) == 3
    if not right or not all(_is_number(each, least, most) for each in cast("list[object]", value)):
        raise ValueError(
            f"{field} is {_shown(value)}, expected three numbers of {least:g} to {most:g}: for red, "
            "green and blue in 0 to 255"
        )
    red, green, blue = cast("list[float]", value)
    return float(red), float(green), float(blue)


def _text(field: str, value: object) -> str:
    # What cannot be printed cannot be told to clients either, such as half of a surrogate pair.
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not value.isprintable():
        raise ValueError(f"{field} is {_shown(value)}, expected up to {_LONGEST_TEXT} characters")
    return value


def _classes(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_CLASSES:
        raise ValueError(f"classes is {_shown(value)}, expected 1 to {_MOST_CLASSES} names")
    names = tuple(_text(f"class {number}", each) for number, each in enumerate(value))
    if "" in names:
        raise ValueError(f"class {names.index('')} is '', expected a name")
    return names


def _crop(value: object) -> Fraction:
    numbers = cast("list[object]", value if isinstance(value, list) else [])
    if len(numbers) == 2 and all(_is_number(each, 1, _LARGEST_COUNT) for each in numbers):
        top, bottom = (_whole("crop", each, 1, _LARGEST_COUNT) for each in numbers)
        if _LEAST_CROP <= top / bottom <= 1:
            return Fraction(top, bottom)
    raise ValueError(
        f"crop is {_shown(value)}, expected two whole numbers, whose quotient is {_LEAST_CROP:g} to 1"
    )


def _topology(value: object) -> Topology:
    if value not in get_args(Topology):
        known = ", ".join(get_args(Topology))
        raise ValueError(f"topology is {_shown(value)}, expected one of {known}")
    return cast("Topology", value)


def _accuracy(value: object) -> float | None:
    if value is not None and not _is_number(value, 0, 1):
        raise ValueError(f"accuracy is {_shown(value)}, expected 0 to 1, or null")
    return None if value is None else float(cast("float", value))


def _shown(value: object) -> str:
    """``value`` in few characters."""
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
