"""The page of a load report in a real browser: wide and on a phone, light and dark."""

from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

from rootserve.client.choice import page as choice_page
from rootserve.client.load.report import read_report
from rootserve.client.report import write_html
from tests.support.browser import show
from tests.support.choices import choice, family

DATA = Path(__file__).parents[1] / "data"
# Of `compute` in the stacked bars; it follows the scheme.
COMPUTE = {"light": (0x2F, 0x7F, 0xD0), "dark": (0x5A, 0xA5, 0xEE)}
PAPER = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}


@pytest.mark.parametrize("name", ["load-open", "load-sweep"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_shown_in_full(
    tmp_path: Path, name: str, scheme: Literal["light", "dark"], width: int
) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "picture.png"
    report = read_report(DATA / f"{name}.json")
    write_html(report, page)
    shown = show(page, width, scheme, picture)
    assert shown.console == []
    assert shown.title == f"{report.model}: load report"
    assert shown.background == PAPER[scheme]
    assert shown.overflow == 0  # nothing is cut off, and nobody has to scroll sideways
    assert len(shown.drawings) >= 7
    for drawing in shown.drawings:
        assert drawing["marks"] >= 1, drawing
        assert drawing["height"] > 50, drawing
        assert 300 < drawing["width"] <= width, drawing
        assert drawing["letters"] >= 12, drawing  # pixels: small print, and no smaller
        assert drawing["outside"] < 16, drawing  # within the page's margin
    with Image.open(picture) as image:
        pixels = image.convert("RGB").crop((0, 0, width, image.height))
        colours = {colour: count for count, colour in pixels.getcolors(2**24) or []}
    assert colours.get(COMPUTE[scheme], 0) > 1000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_choice_is_shown_in_full(
    tmp_path: Path, scheme: Literal["light", "dark"], width: int
) -> None:
    page, picture = tmp_path / "choice.html", tmp_path / "picture.png"
    made = choice(family(), rate=500.0)
    choice_page.write_html(made, page)
    shown = show(page, width, scheme, picture)
    assert shown.console == []
    assert shown.title == "14 variants: which to take"
    assert shown.background == PAPER[scheme]
    assert shown.overflow == 0
    (drawing,) = shown.drawings
    # Fourteen marks, as many intervals, the set joined, and the rate asked for.
    assert drawing["marks"] == 14 + 14 + 2
    assert drawing["letters"] >= 12
    assert drawing["outside"] == 0
    assert drawing["covered"] == []
