"""Writes docs/metrics.md from the metric catalogue; with ``--check`` fails if it is not current."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from rootserve.server.observers.metrics_attained import RESULTS
from rootserve.server.observers.metrics_catalog import (
    CATALOG,
    LABELS,
    PROCESS_METRICS,
    SECTIONS,
    Kind,
    Metric,
)
from rootserve.server.observers.metrics_endpoint import MAX_CONNECTIONS, PAGE_INTERVAL_S
from rootserve.server.refusals import Reason
from scripts.generated import write_or_check

TARGET = Path(__file__).parents[1] / "docs" / "metrics.md"

HEAD = """\
# Metrics

<!-- Written by scripts/metrics_page.py from observers/metrics_catalog.py: change that, not this. -->

`http://127.0.0.1:8002/metrics` (`metrics_port`) serves them as OpenMetrics to those who ask for it, as
Prometheus does, and else in Prometheus's text format. `/ready` beside it answers 200 while health says
SERVING, and else 503.

The endpoint is bounded: it answers {connections} connections at once and makes at most {pages} pages a
second, which those who ask at the same time share. It answers until the very end of a shutdown, with
`rootserve_serving` 0.

A row is one image. Times of requests are measured in the server, from arrival to answer. Every served
model has its series from the start, at zero. When [traces](traces.md) are on, the buckets of
`rootserve_request_seconds` carry the id of a trace as their exemplar (label `trace_id`).

The dashboard `ops/grafana/dashboards/rootserve.json` and the rules in `ops/prometheus/rules` use these
metrics ([monitoring.md](monitoring.md)); what to do about an alert is in [runbooks.md](runbooks.md).
"""

COST = """\
## How many series

Every label value is the server's own, so their number does not depend on callers. A served model has at
most {per_model} series, most of them buckets of `rootserve_request_seconds` for each outcome that was
seen; a family that is served as one model has one more for each of its variants.
"""


def build() -> str:
    """The page."""
    parts = [HEAD.format(connections=MAX_CONNECTIONS, pages=round(1 / PAGE_INTERVAL_S))]
    for title, metrics in SECTIONS.items():
        rows = [
            "| metric | type | unit | labels | what it is |",
            "|---|---|---|---|---|",
            *map(_row, metrics),
        ]
        parts.append("\n".join([f"## {title}", "", *rows, ""]))
    parts.append(_buckets())
    parts.append(
        "\n".join(
            [
                "## Front process",
                "",
                "Told by prometheus_client of the process that speaks gRPC; workers are told of above.",
                "",
                "| metric | what it is |",
                "|---|---|",
                *(f"| `{name}` | {text} |" for name, text in PROCESS_METRICS.items()),
                "",
            ]
        )
    )
    parts.append(
        "\n".join(
            [
                "## Labels",
                "",
                "| label | what it holds |",
                "|---|---|",
                *(f"| `{name}` | {text} |" for name, text in LABELS.items()),
                "",
                f"Reasons: {', '.join(f'`{reason.value}`' for reason in Reason)}.",
                "",
            ]
        )
    )
    parts.append(COST.format(per_model=_most_series()))
    return "\n".join(parts)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
    name = f"`{metric.exposed_name}`"
    return f"| {name} | {metric.kind.value} | {metric.unit} | {labels} | {metric.help} |"


def _buckets() -> str:
    lines = ["## Buckets", "", "Upper bounds (`le`), besides infinity:", ""]
    for bounds in dict.fromkeys(metric.buckets for metric in CATALOG if metric.buckets):
        alike = [metric for metric in CATALOG if metric.buckets == bounds]
        names = ", ".join(f"`{metric.name}`" for metric in alike)
        values = ", ".join(f"{bound:g}" for bound in bounds)
        lines += [f"- {names}, in {alike[0].unit}:", f"  {values}"]
    return "\n".join([*lines, ""])


def _most_series() -> int:
    """Series of one model of which every outcome was seen."""
    values = {"outcome": len(Reason) + 1, "reason": len(Reason), "stage": 2}
    values |= {"deadline": 2, "result": len(RESULTS)}
    count = 0
    for metric in CATALOG:
        if "model" in metric.labels:
            own = math.prod(values.get(label, 1) for label in metric.labels)
            # Beside its bounds a histogram has a bucket for infinity, a sum and a count.
            count += own * (len(metric.buckets) + 3 if metric.kind is Kind.HISTOGRAM else 1)
    return count


def main() -> int:
    """Write the page, or check it."""
    return write_or_check({TARGET: build()}, "python -m scripts.metrics_page", __doc__)


if __name__ == "__main__":
    sys.exit(main())
