"""The pages that show commands show what these commands print."""

import difflib
from pathlib import Path

import pytest

from tests.support.transcript import ROOT, masked, play

PAGES = ("operating.md", "slow-request.md")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_what_its_commands_print(name: str) -> None:
    path: Path = ROOT / "docs" / name
    page = path.read_text()
    shown, printed = masked(page).splitlines(), masked(play(page)).splitlines()
    differences = "\n".join(difflib.unified_diff(shown, printed, "the page", "now", n=1))
    assert not differences, (
        f"{differences}\nif this is right: python -m tests.support.transcript {path}"
    )
