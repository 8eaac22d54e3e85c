"""`rootserve report`: a saved load report as a page or as CSV."""

from pathlib import Path

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
    report = read_report(path)
    if html:
        write_html(report, html)
    if csv:
        write_csv(report, csv)
