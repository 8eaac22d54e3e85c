"""What commands share that make variants of a network: their names and degrees, and a picture of them."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rootmodels.family import Topology
from rootmodels.model import Model
from rootmodels.roots import LARGEST_DEGREE
from rootmodels.weights_info import WeightsError

_FORMATS = (".png", ".svg", ".pdf")


def parse_degrees(text: str, example: str) -> list[int]:
    """Numbers of groups with commas between, ascending and each once.

    Raises:
        argparse.ArgumentTypeError: saying what came, and what was expected by an ``example``.
    """
    parts = text.split(",")
    if not all(part.isdecimal() and 2 <= int(part) <= LARGEST_DEGREE for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} came, expected whole numbers of 2 to {LARGEST_DEGREE}, as {example}"
        )
    return sorted({int(part) for part in parts})


def unmeasured(model: Model, name: str, topology: Topology, degree: int) -> Model:
    """A variant of ``model``, of the same family, whose accuracy nobody has measured."""
    return replace(
        model,
        name=name,
        family=model.family or model.name,
        topology=topology,
        degree=degree,
        accuracy=None,
        test_images=0,
        tested_on="",
    )


def check_picture(picture: Path, *, drawn: bool) -> None:
    """Refuse a picture of no known format, and one that is to be ``drawn`` where nothing can draw.

    Raises:
        WeightsError: saying what was expected.
    """
    if picture.suffix not in _FORMATS:
        raise WeightsError(f"--picture {picture}: expected one of {', '.join(_FORMATS)}")
    if drawn and importlib.util.find_spec("matplotlib") is None:
        raise WeightsError(
            "pictures need matplotlib, which the extra 'client' brings: pip install 'rootserve[client]'; "
            "or give --no-picture"
        )


@contextmanager
def drawing(picture: Path) -> Iterator[None]:
    """Around what draws ``picture``, in a folder that is made.

    Raises:
        WeightsError: if it cannot be written.
    """
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise WeightsError(f"--picture {picture}: {error}") from error
