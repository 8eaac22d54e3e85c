"""`rootserve report`: a saved load report as a page or as CSV, or a saved choice as a page."""

import json
from pathlib import Path

from rootserve.client.choice import page
from rootserve.client.choice.document import SCHEMA, read_choice
from rootserve.client.errors import InputError
from rootserve.client.load.report import read_report
from rootserve.client.report import write_csv, write_html


def run(path: Path, html: Path | None, csv: Path | None) -> None:
    """Read the report and write what was asked for.

    Raises:
        InputError: Nothing was asked for, the file holds no report, or one cannot be written.
    """
    if html is None and csv is None:
        raise InputError("neither --html nor --csv: expected at least one of them")
    if _is_choice(path):
        if csv:
            raise InputError(f"--csv of {path}: a choice has a page alone; expected --html")
        assert html is not None  # one of the two was given
        page.write_html(read_choice(path), html)
        return
    report = read_report(path)
    if html:
        write_html(report, html)
    if csv:
        write_csv(report, csv)


def _is_choice(path: Path) -> bool:
    """Whether the file says so; what else may be wrong with it, its reader says."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("schema") == SCHEMA
