"""A load run's report as JSON, with all one needs to run it again; docs/load.md describes it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rootserve.client.catalog import Model, ServerInfo
from rootserve.client.files import write_text
from rootserve.client.load.campaign import Campaign
from rootserve.client.load.doubts import client_limited, doubts
from rootserve.client.load.objective import Verdict
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.result import LoadResult, Part, StageDetail, Stages
from rootserve.client.machine import describe_machine
from rootserve.client.version import client_version

SCHEMA = "rootserve.load/1"
SCHEMA_VERSION = 1


def to_json(
    result: LoadResult,
    info: ServerInfo | None = None,
    model: Model | None = None,
    *,
    campaign: Campaign | None = None,
    objective: tuple[float, Verdict] | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """The report, ready for `json.dumps`. Times are in seconds; None where nothing tells them.

    Args:
        result: What was measured; of a campaign, its head.
        info: The server's description; None for a server without our catalogue.
        model: The server's entry of the model.
        campaign: What the run belongs to, when there are several.
        objective: The p99 asked for, in seconds, and whether it was met.
        command: The command line that ran it.
    """
    kind = campaign.kind if campaign else "run"
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "model": str(result.options.model),
        **run_json(result),
        "interrupted": result.interrupted or bool(campaign and campaign.interrupted),
        "levels": [run_json(each) for each in campaign.runs] if campaign and kind != "run" else [],
        "objective": _objective(objective),
        "find_max": _find_max(campaign) if campaign and kind == "find_max" else None,
        "pairs": _pairs(campaign) if campaign and kind == "pairs" else None,
        "command": command,
        "options": result.options.to_json(),
        "server": {
            **(info.to_json() if info else {}),
            "engine": model.engine if model else None,
            "precision": model.precision if model else None,
            "model": model.to_json() if model else None,
        },
        "client": {
            "version": client_version(),
            **describe_machine(),
            "processes": result.options.processes,
            "cpu_cores": result.client_cpu_cores,
        },
    }


def run_json(result: LoadResult) -> dict[str, Any]:
    """The keys of one run."""
    detail = result.stage_detail
    return {
        "label": result.label,
        **_load(result.options),
        "started_at": result.started_at.isoformat(timespec="milliseconds"),
        "window_s": result.window_s,
        "interrupted": result.interrupted,
        "requests": result.requests,
        "succeeded": result.succeeded,
        "errors": dict(result.errors),
        "unfinished": result.unfinished,
        "outcomes": _outcomes(result),
        "offered_requests_per_s": result.requests / result.window_s if result.window_s else 0.0,
        "throughput_rows_per_s": result.throughput_rows_per_s,
        "throughput_requests_per_s": result.throughput_requests_per_s,
        "response_time_s": result.response_time.to_json(),
        "service_time_s": result.service_time.to_json(),
        "response_quantiles_s": [list(pair) for pair in result.response_quantiles],
        "p99_of_all_s": result.p99_of_all_s,
        "late_departures": result.late_departures,
        "held_back": result.held_back,
        "max_lateness_s": result.max_lateness_s,
        "stages_s": _stages(result.stages),
        "mean_batch_rows": result.stages.batch_rows if result.stages else None,
        **_stage_detail(detail),
        "time_step_s": result.time_step_s,
        "time_series": [dict(step) for step in result.time_series],
        "by_model": _parts(result.by_model),
        "by_server": _parts(result.by_server),
        "trials": [
            {
                "start_s": trial.start_s,
                "end_s": trial.end_s,
                "throughput_requests_per_s": trial.throughput_requests_per_s,
                "p99_s": trial.p99_s,
                "counted": trial.counted,
            }
            for trial in result.trials
        ],
        "stable": result.stable,
        "client_cpu_cores": result.client_cpu_cores,
        "client_limited": client_limited(result),
        "warnings": doubts(result),
        "histograms": dict(result.histograms),
    }


def _load(options: LoadOptions) -> dict[str, Any]:
    asked = options.to_json()
    return {name: asked[name] for name in ("loop", "concurrency", "rate")}


def _outcomes(result: LoadResult) -> dict[str, int]:
    outcomes = Counter({"OK": result.succeeded, **result.errors, "UNFINISHED": result.unfinished})
    return {code: number for code, number in outcomes.items() if number}


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


def _stage_detail(detail: StageDetail | None) -> dict[str, Any]:
    if detail is None:
        return {"stages_by_percentile_s": None, "stage_times_s": None, "batch_rows": {}}
    return {
        "stages_by_percentile_s": {
            name: dict(stages) for name, stages in detail.by_percentile.items()
        },
        "stage_times_s": {stage: times.to_json() for stage, times in detail.times.items()},
        "batch_rows": {str(rows): number for rows, number in detail.batch_rows.items()},
    }


def _parts(parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [
        {
            "name": part.name,
            "requests": part.requests,
            "succeeded": part.succeeded,
            "errors": dict(part.errors),
            "unfinished": part.unfinished,
            "throughput_requests_per_s": part.throughput_requests_per_s,
            "throughput_rows_per_s": part.throughput_rows_per_s,
            "response_time_s": part.response_time.to_json(),
            "service_time_s": part.service_time.to_json(),
        }
        for part in parts
    ]


def _objective(objective: tuple[float, Verdict] | None) -> dict[str, Any] | None:
    if objective is None:
        return None
    p99_s, verdict = objective
    return {
        "p99_s": p99_s,
        "met": verdict.met,
        "decided": verdict.decided,
        "text": verdict.text,
    }


def _find_max(campaign: Campaign) -> dict[str, Any] | None:
    found, p99_s = campaign.found, campaign.objective_p99_s
    if found is None or p99_s is None:
        return None
    return {
        "objective_p99_s": p99_s,
        "limit": found.limit,
        "low": found.low,
        "high": found.high,
        "rate": found.rate,
        "lowest_missed": found.lowest_missed,
        "uncertainty": found.uncertainty,
        "complete": found.complete,
        "text": found.text(p99_s),
        "client_limited": campaign.limited_by_client(),
        "steps": [
            {"rate": step.rate, "held": step.held, "p99_s": step.p99_s, "level": step.level}
            for step in campaign.steps
        ],
    }


def _pairs(campaign: Campaign) -> dict[str, Any]:
    labels = [run.label for run in campaign.runs[:2]] + [None, None]
    ratios: Mapping[str, Any] = campaign.ratios()
    return {
        "a": labels[0],
        "b": labels[1],
        "rounds": len(campaign.runs) // 2,
        "ratios": {name: ratio.to_json() if ratio else None for name, ratio in ratios.items()},
    }


def write(report: dict[str, Any], path: Path) -> None:
    """Write the report.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", path)
