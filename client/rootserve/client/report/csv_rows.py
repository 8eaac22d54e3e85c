"""A load report as CSV: one row for each run, for spreadsheets and data frames."""

import csv
import io
from collections.abc import Mapping
from typing import Any

_TIMES = ("p50", "p90", "p99", "p999", "mean", "max")
_STAGES = ("queue", "batch_wait", "compute", "rest", "outside_server")
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


def to_csv(report: Mapping[str, Any]) -> str:
    """The runs of a report, or the one it is of, below a header; unknown values are empty.

    Failures have a column for each status code that came.
    """
    runs = report["levels"] or [report]
    codes = sorted({code for run in runs for code in run["errors"]})
    columns = [
        "model",
        *_PLAIN,
        *(f"response_time_{name}_s" for name in _TIMES),
        *(f"service_time_{name}_s" for name in _TIMES),
        *(f"mean_{name}_s" for name in _STAGES),
        *(f"errors_{code}" for code in codes),
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for run in runs:
        stages = run.get("stages_s") or {}
        writer.writerow(
            [
                run.get("model", report["model"]),
                *(run.get(name) for name in _PLAIN),
                *(run["response_time_s"].get(name) for name in _TIMES),
                *(run["service_time_s"].get(name) for name in _TIMES),
                *(stages.get(name) for name in _STAGES),
                *(run["errors"].get(code, 0) for code in codes),
            ]
        )
    return file.getvalue()
