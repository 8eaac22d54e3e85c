"""A load report as CSV: one row for each run, for spreadsheets and data frames."""

import csv
import io
from dataclasses import fields
from operator import attrgetter

from rootserve.client.load.report import Attained, LoadResult, Report
from rootserve.client.report.columns import Column, error_column
from rootserve.client.stages import STAGES

_TIMES = ("p50", "p90", "p99", "p999", "mean", "max")
_ATTAINED = [each.name for each in fields(Attained) if each.name != "variants"]
_PLAIN = (
    "label",
    "loop",
    "concurrency",
    "rate",
    "started_at",
    "window_s",
    "interrupted",
    "requests",
    "succeeded",
    "unfinished",
    "offered_requests_per_s",
    "throughput_requests_per_s",
    "throughput_rows_per_s",
    "late_departures",
    "max_lateness_s",
    "mean_batch_rows",
    "stable",
    "client_cpu_cores",
    "client_limited",
)


def to_csv(report: Report) -> str:
    """The runs of a report, or the one it is of, below a header; unknown values are empty.

    Failures have a column for each status code and each reason that came, answers one for each variant.
    """
    kept = [run.attained for run in report.runs if run.attained]
    variants = sorted({name for each in kept for name in each.variants})
    reasons = sorted({name for run in report.runs for name in run.reasons})
    codes = sorted({code for run in report.runs for code in run.errors})
    columns: list[Column[LoadResult]] = [
        # The runs of earlier versions do not tell their own.
        Column("model", lambda run: run.model or report.model),
        *(Column(name, attrgetter(name)) for name in _PLAIN),
        *(
            Column(f"{kind}_{name}_s", attrgetter(f"{kind}_s.{name}"))
            for kind in ("response_time", "service_time")
            for name in _TIMES
        ),
        *(_mean(stage.name) for stage in STAGES),
        *(error_column(code, f"errors_{code}") for code in codes),
        *(_attained(name) for name in _ATTAINED),
        *(_variant(name) for name in variants),
        *(_reason(name) for name in reasons),
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    writer.writerows([column.value(run) for column in columns] for run in report.runs)
    return file.getvalue()


def _attained(name: str) -> Column[LoadResult]:
    return Column(name, lambda run: getattr(run.attained, name, None))


def _variant(name: str) -> Column[LoadResult]:
    return Column(
        f"variant_{name}", lambda run: run.attained.variants.get(name, 0) if run.attained else 0
    )


def _reason(name: str) -> Column[LoadResult]:
    return Column(f"reason_{name}", lambda run: run.reasons.get(name, 0))


def _mean(stage: str) -> Column[LoadResult]:
    return Column(f"mean_{stage}_s", lambda run: (run.stages_s or {}).get(stage))
