"""Puts a report together: the run that stands for all, the others, and what they were measured with."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from rootserve.client.catalog import Model, ServerInfo
from rootserve.client.load.campaign import Campaign
from rootserve.client.load.report import FindMax, LoadResult, Objective, Pairs, Report
from rootserve.client.machine import describe_machine
from rootserve.client.version import client_version


def report_of(
    result: LoadResult,
    info: ServerInfo | None = None,
    models: Sequence[Model] = (),
    *,
    campaign: Campaign | None = None,
    objective: Objective | None = None,
    command: str | None = None,
) -> Report:
    """The report of a run, or of a campaign.

    Args:
        result: What was measured; of a campaign, its head.
        info: The server's description; None for a server without our catalogue.
        models: The server's entries of the models, the run's first one before the others.
        campaign: What the run belongs to, when there are several.
        objective: What was asked for and whether it was met.
        command: The command line that ran it.
    """
    kind = campaign.kind if campaign else "run"
    model = models[0] if models else None
    run = {each.name: getattr(result, each.name) for each in fields(LoadResult)}
    run["interrupted"] = result.interrupted or bool(campaign and campaign.interrupted)
    return Report(
        **run,
        kind=kind,
        levels=tuple(campaign.runs) if campaign and kind != "run" else (),
        objective=objective,
        find_max=_find_max(campaign) if campaign and kind == "find_max" else None,
        pairs=_pairs(campaign) if campaign and kind == "pairs" else None,
        command=command,
        server={
            **(info.to_json() if info else {}),
            "engine": model.engine if model else None,
            "precision": model.precision if model else None,
            "model": model.to_json() if model else None,
            "batch_limits": _batch_limits(models),
        },
        client={
            "version": client_version(),
            **describe_machine(),
            "processes": result.options["processes"],
            "cpu_cores": result.client_cpu_cores,
        },
    )


def _batch_limits(models: Sequence[Model]) -> Mapping[str, int]:
    """Rows that a batch of each model has at most, of those of which the server tells it."""
    return {model.name: model.batch_rows for model in models if model.batch_rows is not None}


def _find_max(campaign: Campaign) -> FindMax | None:
    found, goals = campaign.found, campaign.goals
    if found is None or goals is None:
        return None
    known = asdict(found)
    del known["runs"]
    return FindMax(
        objective_p99_s=goals.p99_s,
        objective_attainment=goals.attainment,
        **known,
        uncertainty=found.uncertainty,
        text=found.text(goals.text),
        client_limited=campaign.limited_by_client(),
        steps=tuple(campaign.steps),
    )


def _pairs(campaign: Campaign) -> Pairs:
    a, b = [*(run.label for run in campaign.runs[:2]), None, None][:2]
    return Pairs(a, b, len(campaign.runs) // 2, campaign.ratios())
