"""A load run's report as JSON, with all one needs to run it again and to know what it ran on."""

import json
import platform
from pathlib import Path
from typing import Any

from client.catalog import Model, ServerInfo
from client.errors import InputError
from client.load.recording import LoadResult, Stages
from client.version import client_version

SCHEMA_VERSION = 1


def to_json(
    result: LoadResult, info: ServerInfo | None = None, model: Model | None = None
) -> dict[str, Any]:
    """The report, ready for `json.dumps`. Times are in seconds; None where nothing succeeded.

    Args:
        result: What was measured.
        info: The server's description; None for a server without our catalogue.
        model: The server's entry of the model.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "model": result.options.model,
        "started_at": result.started_at.isoformat(timespec="milliseconds"),
        "window_s": result.window_s,
        "interrupted": result.interrupted,
        "requests": result.requests,
        "succeeded": result.succeeded,
        "errors": dict(result.errors),
        "unfinished": result.unfinished,
        "throughput_rows_per_s": result.throughput_rows_per_s,
        "throughput_requests_per_s": result.throughput_requests_per_s,
        "response_time_s": result.response_time.to_json(),
        "service_time_s": result.service_time.to_json(),
        "late_departures": result.late_departures,
        "max_lateness_s": result.max_lateness_s,
        "stages_s": _stages(result.stages),
        "mean_batch_rows": result.stages.batch_rows if result.stages else None,
        "options": result.options.to_json(),
        "server": {
            **(info.to_json() if info else {}),
            "engine": model.engine if model else None,
            "precision": model.precision if model else None,
            "model": model.to_json() if model else None,
        },
        "client": {
            "version": client_version(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu_cores": result.client_cpu_cores,
        },
    }


def _stages(stages: Stages | None) -> dict[str, float] | None:
    if stages is None:
        return None
    return {
        "queue": stages.queue_s,
        "batch_wait": stages.batch_wait_s,
        "compute": stages.compute_s,
        "rest": stages.rest_s,
        "outside_server": stages.outside_server_s,
    }


def check_writable(path: Path) -> None:
    """Make sure that a report can be written there, before the time to measure it is spent.

    Raises:
        InputError: It cannot; the message says why.
    """
    existed = path.exists()
    try:
        with path.open("a"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise InputError(
            f"{path}: the report cannot be written there ({error.strerror}); "
            "expected a file in a folder that exists"
        ) from None


def write(report: dict[str, Any], path: Path) -> None:
    """Write the report.

    Raises:
        InputError: The file cannot be written.
    """
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: the report cannot be written ({error.strerror})") from None
