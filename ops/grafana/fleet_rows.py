"""The rows of the dashboard that tell of workers, models and analysis."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from panels import IMAGES, About, bars, columns, lines, number, points, states
from promql import NO_GPU, NO_REQUESTS, OK, PER_IMAGE, M, W, quantile, rate


def workers(board: Dashboard) -> None:
    """Workers and devices."""
    board.with_row(Row("Workers and devices"))
    board.with_panel(
        states(
            About("Workers", "Green: it takes batches.", "none", "No server is scraped"),
            {"{{instance}} {{worker}}": f"rootserve_worker_up{{{W}}}"},
            "up",
            "down",
        )
    )
    board.with_panel(
        lines(
            About(
                "Busy",
                "Share of time in which a worker computes batches.",
                "percentunit",
                "No server is scraped",
            ),
            {
                "{{instance}} {{worker}}": rate(
                    "rootserve_worker_busy_seconds_total", W, "instance, worker"
                )
            },
            most=1,
        )
    )
    board.with_panel(
        lines(
            About(
                "Replaced workers",
                "In the last 15 minutes; above 2 somebody is called.",
                "none",
                "No server is scraped",
            ),
            {"{{instance}} {{worker}}": f"increase(rootserve_worker_restarts_total{{{W}}}[15m])"},
            limit=2,
        )
    )
    board.with_panel(
        lines(
            About(
                "Processors",
                "Processors in use: the front process, which speaks gRPC, and the workers.",
                "suffix: CPU",
                "No server is scraped",
            ),
            {
                "{{instance}} front": 'rate(process_cpu_seconds_total{job="rootserve"}[$__rate_interval])',
                "{{instance}} {{worker}}": rate(
                    "rootserve_worker_cpu_seconds_total", W, "instance, worker"
                ),
            },
        )
    )
    board.with_panel(
        lines(
            About("Memory", "Resident.", "bytes", "No server is scraped"),
            {
                "{{instance}} front": 'process_resident_memory_bytes{job="rootserve"}',
                "{{instance}} {{worker}}": f"rootserve_worker_resident_memory_bytes{{{W}}}",
            },
        )
    )
    board.with_panel(
        lines(
            About(
                "Network",
                "Bytes of gRPC messages, of all methods and models.",
                "Bps",
                "No message came yet",
            ),
            {
                "received": "sum(rate(rootserve_received_bytes_total[$__rate_interval]))",
                "sent": "sum(rate(rootserve_sent_bytes_total[$__rate_interval]))",
            },
        )
    )


def variants(board: Dashboard) -> None:
    """Variants side by side."""
    board.with_row(Row("Variants side by side"))
    board.with_panel(
        columns(
            About(
                "What each variant costs and yields",
                "Accuracy is that of the served weights on the test set. Times are of the last "
                "5 minutes, and missing for models without requests; compute is per image, as "
                "it was batched.",
                "none",
                "No server is scraped",
                24,
                8,
            ),
            {
                "ready": f"min by (model, engine, precision) (rootserve_model_info{{{M}}}"
                " * on (job, instance, model) group_left () rootserve_model_ready)",
                "accuracy": f"max by (model) (rootserve_model_accuracy_ratio{{{M}}})",
                "MACs": f"max by (model) (rootserve_model_macs{{{M}}})",
                "parameters": f"max by (model) (rootserve_model_params{{{M}}})",
                "compute per image": PER_IMAGE,
                "p50": quantile(0.5, "rootserve_request_seconds", OK, "le, model", "5m"),
                "p99": quantile(0.99, "rootserve_request_seconds", OK, "le, model", "5m"),
                "images/s": f"sum by (model) (rate(rootserve_rows_total{{{M}}}[5m]))",
            },
            {
                "accuracy": ("percentunit", 2),
                "MACs": ("short", 1),
                "parameters": ("short", 0),
                "compute per image": ("s", 2),
                "p50": ("s", 2),
                "p99": ("s", 2),
                "images/s": (IMAGES, 1),
            },
        )
    )
    board.with_panel(
        points(
            About(
                "Latency against accuracy",
                "One point per model, last 5 minutes: right and low is good.",
                "s",
                NO_REQUESTS,
                8,
                8,
            ),
            ("accuracy", f"max by (model) (rootserve_model_accuracy_ratio{{{M}}})"),
            ("compute per image", PER_IMAGE),
        )
    )
    board.with_panel(
        bars(
            About(
                "Compute per image", "Last 5 minutes, as it was batched.", "s", NO_REQUESTS, 8, 8
            ),
            PER_IMAGE,
            2,
        )
    )
    board.with_panel(
        bars(
            About(
                "Multiply-accumulates per second",
                "Equal bars: time follows the FLOPs. A shorter bar: a variant gains less than "
                "its FLOPs promise.",
                "si:MAC/s",
                NO_REQUESTS,
                8,
                8,
            ),
            f"max by (model) (rootserve_model_macs{{{M}}}) / on (model) ({PER_IMAGE})",
            1,
        )
    )


def analysis(board: Dashboard) -> None:
    """Analysis."""
    board.with_row(Row("Analysis"))
    board.with_panel(
        number(
            About(
                "Jobs",
                "Analysis jobs under way; 0 is normal.",
                "none",
                "No server is scraped",
                8,
                5,
            ),
            "sum(rootserve_analysis_jobs)",
        )
    )
    board.with_panel(
        lines(
            About(
                "Images analysed",
                "Images per second that analysis jobs compute beside inference; 0 while there "
                "is no job.",
                IMAGES,
                "No server is scraped",
                16,
                5,
            ),
            {"{{model}}": rate("rootserve_analysis_images_total", M, "model")},
        )
    )


def gpus(board: Dashboard) -> None:
    """GPUs, folded: most servers have none, and three empty panels would tell them nothing."""
    row = Row("GPUs").collapsed(True)
    row.with_panel(
        lines(
            About(
                "GPU utilisation", "Share of time in which a GPU computes.", "percentunit", NO_GPU
            ),
            {"{{instance}} GPU {{gpu}}": "rootserve_gpu_utilization_ratio"},
            most=1,
        )
    )
    row.with_panel(
        lines(
            About("GPU memory", "In use, and there is.", "bytes", NO_GPU),
            {
                "{{instance}} GPU {{gpu}}": "rootserve_gpu_memory_used_bytes",
                "{{instance}} GPU {{gpu}} total": "rootserve_gpu_memory_total_bytes",
            },
        )
    )
    row.with_panel(
        lines(
            About("GPU power", "Watts drawn.", "watt", NO_GPU),
            {"{{instance}} GPU {{gpu}}": "rootserve_gpu_power_watts"},
        )
    )
    board.with_row(row)
