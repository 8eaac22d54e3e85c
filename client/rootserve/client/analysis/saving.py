"""A picture becomes a file."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from rootserve.client.analysis.style import Format, Style

_AS_WORDS: Any = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "rootserve"}
"""Words can be searched and restyled, and the same picture is the same file."""


def save(
    figure: Figure, folder: Path, name: str, style: Style, palette: bytes | None = None
) -> Path:
    """Write ``figure`` into ``folder``; give the file.

    Args:
        figure: It is changed to the size that ``style`` asks for.
        folder: Which is there.
        name: Of the file, without its ending.
        style: In what form.
        palette: Red, green and blue of each colour that there is: a PNG takes a third of the space and looks
            the same.
    """
    path = folder / f"{name}.{style.format}"
    if style.size is not None:
        width, height = style.size
        own_width, own_height = figure.get_size_inches()
        figure.set_size_inches(width, height or own_height * width / own_width)
    dpi = style.dpi or figure.dpi
    if style.format is not Format.png:
        metadata = {"Date": None} if style.format is Format.svg else {"CreationDate": None}
        with mpl.rc_context(_AS_WORDS):
            figure.savefig(path, format=str(style.format), dpi=dpi, metadata=metadata)
    elif palette is None:
        figure.savefig(path, format="png", dpi=dpi)
    else:
        _save_indexed(figure, path, dpi, palette)
    return path


def _save_indexed(figure: Figure, path: Path, dpi: float, palette: bytes) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    colours = Image.new("P", (1, 1))
    colours.putpalette(palette)
    with Image.open(buffer) as picture:
        indexed = picture.convert("RGB").quantize(palette=colours, dither=Image.Dither.NONE)
    indexed.save(path, format="PNG", optimize=True, dpi=(dpi, dpi))
