"""A load report for people and spreadsheets: tables, one HTML page, CSV, and the live view of a run."""

from pathlib import Path

from rootserve.client.files import write_text
from rootserve.client.load.report import Report
from rootserve.client.report.csv_rows import to_csv
from rootserve.client.report.page import render


def write_html(report: Report, path: Path) -> None:
    """Write the report as one self-contained page.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(render(report), path)


def write_csv(report: Report, path: Path) -> None:
    """Write one row for each run of the report.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(to_csv(report), path)
