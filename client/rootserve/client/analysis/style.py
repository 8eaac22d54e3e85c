"""In what form pictures are written: for a screen, or for a paper."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from rootserve.client.errors import InputError
from rootserve.client.shared_options import with_options

_LARGEST_IN = 100.0
_DPI = (30, 1200)


class Format(StrEnum):
    """Of a picture; its name ends so."""

    png = "png"
    svg = "svg"
    pdf = "pdf"


@dataclass(frozen=True, slots=True)
class Style:
    """How pictures are written.

    Args:
        format: Of the files. Words in SVG and PDF stay words.
        dpi: Dots per inch; None takes the picture's own.
        size: Width and height in inches; without a height, it stays in proportion; None takes the picture's
            own.
    """

    format: Format = Format.png
    dpi: int | None = None
    size: tuple[float, float | None] | None = None


def _options(
    *,
    picture_format: Annotated[
        Format, typer.Option("--format", help="Format of the pictures.")
    ] = Format.png,
    dpi: Annotated[
        int | None,
        typer.Option(metavar="N", min=_DPI[0], max=_DPI[1], help="Dots per inch of the pictures."),
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            metavar="W[xH]",
            help="Inches of each picture [default: what it needs].",
            show_default=False,
        ),
    ] = "",
) -> Style:
    return Style(picture_format, dpi, _parse_size(size) if size else None)


def drawing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options; it gets what they say as its argument `style`."""
    return with_options(command, _options, "style")


def _parse_size(text: str) -> tuple[float, float | None]:
    width, cross, height = text.partition("x")
    try:
        sides = [float(width), *([float(height)] if cross else [])]
    except ValueError:
        sides = []
    if not sides or not all(1.0 <= side <= _LARGEST_IN for side in sides):
        raise InputError(
            f"--size '{text}': expected a width in inches, or width and height, as 6.5 or 6.5x4; "
            f"each of 1 to {_LARGEST_IN:.0f}"
        )
    return sides[0], sides[1] if cross else None
