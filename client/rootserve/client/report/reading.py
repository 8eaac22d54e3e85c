"""Reads a load report that was written before, and refuses what is none."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rootserve.client.errors import InputError

SCHEMA = "rootserve.load/1"
_EXPECTED = f"expected a report of 'rootserve load --json', schema {SCHEMA}"
# Without these there is no report; what else may be absent is left out of the page.
_NEEDED = {
    "schema": str,
    "kind": str,
    "model": str,
    "loop": str,
    "started_at": str,
    "window_s": float,
    "requests": int,
    "succeeded": int,
    "errors": dict,
    "unfinished": int,
    "outcomes": dict,
    "offered_requests_per_s": float,
    "throughput_rows_per_s": float,
    "throughput_requests_per_s": float,
    "response_time_s": dict,
    "service_time_s": dict,
    "late_departures": int,
    "client_cpu_cores": float,
    "levels": list,
    "options": dict,
}


def read_report(path: Path) -> Mapping[str, Any]:
    """Read a report.

    Raises:
        InputError: The file cannot be read, or is no report of a schema known here.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {_EXPECTED}") from None
    except ValueError:
        raise InputError(f"{path}: is no JSON; {_EXPECTED}") from None
    if not isinstance(report, dict) or "schema" not in report:
        raise InputError(f"{path}: is no load report; {_EXPECTED}")
    if report["schema"] != SCHEMA:
        raise InputError(f"{path}: has the schema {report['schema']!r}; {_EXPECTED}")
    for key, kind in _NEEDED.items():
        kinds = (int, float) if kind is float else kind
        if not isinstance(report.get(key), kinds):
            raise InputError(f"{path}: has no usable '{key}'; {_EXPECTED}")
    return report
