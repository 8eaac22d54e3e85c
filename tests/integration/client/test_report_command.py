"""`rootserve report`: a saved report becomes a page and CSV, without a server."""

from collections.abc import Callable
from pathlib import Path

import pytest

Rootserve = Callable[..., tuple[int, str, str]]
REPORT = Path(__file__).parents[2] / "data" / "load-open.json"


def test_both_files_are_written(rootserve: Rootserve, tmp_path: Path) -> None:
    html, csv = tmp_path / "report.html", tmp_path / "report.csv"
    assert rootserve("report", REPORT, "--html", html, "--csv", csv) == (0, "", "")
    assert html.read_text().startswith("<!doctype html>")
    assert csv.read_text().startswith("model,label,")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((REPORT,), "neither --html nor --csv"),
        (("/nowhere/r.json", "--html", "x.html"), "/nowhere/r.json: cannot be read"),
        ((REPORT, "--html", "/nowhere/x.html"), "/nowhere/x.html: cannot be written"),
        ((__file__, "--html", "x.html"), "is no JSON"),
    ],
)
def test_what_cannot_be_done_is_said(
    rootserve: Rootserve, arguments: tuple[object, ...], words: str
) -> None:
    code, out, err = rootserve("report", *arguments)
    assert (code, out) == (2, "")
    assert words in err
