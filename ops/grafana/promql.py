"""The queries that panels share, and what panels without data say."""

from __future__ import annotations

NO_REQUESTS = "No request was answered in this time"
NO_DEADLINES = "No request with a deadline came in this time"
NO_GPU = "No GPU here, or the server lacks nvidia-ml-py (the extra gpu)"
NO_PROXY = "No proxy is scraped: there is one where a cluster runs (docs/cluster.md)"
RECORDED = 'model=~"$model"'
"""Of what rules record of all servers together."""
M = f'{RECORDED}, instance=~"$instance"'
OK = f'{M}, outcome="ok"'
W = 'worker=~"$worker", instance=~"$instance"'


def quantile(
    q: float, metric: str, labels: str = M, by: str = "le", window: str = "$__rate_interval"
) -> str:
    """A quantile of a histogram. Without any observation it is NaN, which ``>= 0`` leaves out."""
    rate = f"sum by ({by}) (rate({metric}_bucket{{{labels}}}[{window}]))"
    return f"histogram_quantile({q}, {rate}) >= 0"


def mean(metric: str, labels: str = M, by: str = "") -> str:
    """The mean of a histogram; left out without any observation."""
    group = f" by ({by})" if by else ""
    total = f"sum{group} (rate({metric}_sum{{{labels}}}[$__rate_interval]))"
    count = f"sum{group} (rate({metric}_count{{{labels}}}[$__rate_interval]))"
    return f"{total} / ({count} > 0)"


def rate(metric: str, labels: str, by: str) -> str:
    """Events per second."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


PER_IMAGE = (
    f"sum by (model) (rate(rootserve_compute_seconds_sum{{{M}}}[5m]))"
    f" / (sum by (model) (rate(rootserve_batch_rows_sum{{{M}}}[5m])) > 0)"
)
"""Compute seconds per image of each model, as it was batched."""
