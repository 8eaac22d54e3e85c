"""The row of the dashboard that tells of many servers: how the load is spread, what is tried again."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from panels import About, lines, number
from promql import NO_PROXY, M

E = 'envoy_cluster_name="rootserve"'


def proxy(board: Dashboard) -> None:
    """Many servers behind a proxy, folded: who has one server needs none of it."""
    row = Row("Many servers behind a proxy").collapsed(True)
    row.with_panel(
        number(
            About("Servers", "Servers that the proxy sends requests to.", "none", NO_PROXY, 4),
            f"min(envoy_cluster_membership_healthy{{{E}}})",
        )
    )
    row.with_panel(
        lines(
            About(
                "Spread of load",
                "Calls per second that the proxy sends to each server.",
                "reqps",
                NO_PROXY,
                10,
            ),
            {
                "{{envoy_endpoint_address}}": "sum by (envoy_endpoint_address) "
                f"(rate(envoy_cluster_endpoint_rq_total{{{E}}}[$__rate_interval]))"
            },
            stacked=True,
        )
    )
    row.with_panel(
        lines(
            About(
                "Backlog",
                "Seconds in which a server would compute what waits there, all models together.",
                "s",
                "No server is scraped",
                10,
            ),
            {"{{instance}}": f"sum by (instance) (rootserve_backlog_seconds{{{M}}})"},
        )
    )
    row.with_panel(
        lines(
            About(
                "Tried again",
                "Calls per second that the proxy sends to another server, and those that it gives up because "
                "too many are tried again at once.",
                "reqps",
                NO_PROXY,
                12,
            ),
            {
                "tried again": f"sum(rate(envoy_cluster_upstream_rq_retry{{{E}}}[$__rate_interval]))",
                "given up": "sum(rate(envoy_cluster_upstream_rq_retry_overflow"
                f"{{{E}}}[$__rate_interval]))",
            },
        )
    )
    row.with_panel(
        lines(
            About(
                "Servers taken away",
                "Servers whose health is not SERVING or unknown, and those whose connections failed.",
                "none",
                NO_PROXY,
                12,
            ),
            {
                "not serving": f"sum(envoy_cluster_membership_total{{{E}}})"
                f" - sum(envoy_cluster_membership_healthy{{{E}}})",
                "ejected": f"sum(envoy_cluster_outlier_detection_ejections_active{{{E}}})",
            },
        )
    )
    board.with_row(row)
