"""`rootserve load`: puts models under load and reports what came of it."""

import asyncio
import itertools
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rootserve.client.catalog import Model, ServerInfo
from rootserve.client.commands.measurement import Measurement
from rootserve.client.dataset import read_dataset
from rootserve.client.errors import InputError, RootserveError, ServerError, Unreachable
from rootserve.client.files import check_writable
from rootserve.client.inference import AsyncClient
from rootserve.client.load import LoadOptions, LoadResult, run_load
from rootserve.client.load.campaign import Campaign
from rootserve.client.load.doubts import silent_since
from rootserve.client.load.mix import mix_of
from rootserve.client.load.objective import judge
from rootserve.client.load.report import Objective, Report, write_report
from rootserve.client.load.reporting import report_of
from rootserve.client.load.requests import POOL_SIZE
from rootserve.client.report import write_csv, write_html
from rootserve.client.report.live import LiveView, run_line
from rootserve.client.report.terminal import print_campaign, print_limits, print_load
from rootserve.client.stopping import stop_on_signals, unless_stopped
from rootserve.client.tables import console

# The search for the highest rate ends when a rate that misses is this close above one that holds.
_PRECISION = 0.05


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files to write the report to."""

    json: Path | None = None
    html: Path | None = None
    csv: Path | None = None

    def write(self, report: Report, screen: Console) -> None:
        """Write all of them; one that fails does not cost the others.

        Raises:
            InputError: One could not be written; the message tells where the report is instead.
        """
        writers: list[tuple[Path | None, Callable[[Report, Path], None]]] = [
            (self.json, write_report),
            (self.html, write_html),
            (self.csv, write_csv),
        ]
        failures = []
        for path, write_it in writers:
            if path is None:
                continue
            try:
                write_it(report, path)
            except InputError as error:
                failures.append(str(error))
            else:
                screen.print(f"report in {path}", markup=False, soft_wrap=True)
        if failures:
            rescue = Path(tempfile.gettempdir()) / f"rootserve-load-{os.getpid()}.json"
            write_report(report, rescue)
            raise InputError(f"{'; '.join(failures)}; the report is in {rescue}")


class Outcome(Enum):
    """How a measurement ended."""

    DONE = "done"
    MISSED = "missed"
    INTERRUPTED = "interrupted"


def run(measurement: Measurement, data: Path | None, outputs: Outputs) -> Outcome:
    """Measure, print the figures and write the report.

    Raises:
        ServerError: Every single request was refused or failed, or the server went away.
        InputError: Something given cannot be used, or a file cannot be written.
    """
    # All that can be wrong is found out before time is spent on measuring.
    for path in (outputs.json, outputs.html, outputs.csv):
        if path:
            check_writable(path)
    most_rows = max(max(mix_of(options.rows).values) for options in measurement.levels)
    images = read_dataset(data, limit=POOL_SIZE * most_rows).images if data else None
    return asyncio.run(_run(measurement, images, outputs))


async def _run(
    measurement: Measurement, images: NDArray[np.uint8] | None, outputs: Outputs
) -> Outcome:
    with stop_on_signals() as stop:
        first = measurement.levels[0]
        described = await unless_stopped(stop, _describe(first, measurement.models))
        campaign = Campaign(measurement.kind, _runner(measurement, images, stop), stop)
        failure: RootserveError | None = None
        try:
            await _measure(measurement, campaign)
        except RootserveError as error:
            if not campaign.runs:
                raise
            # What was measured before is told first.
            failure = error
        # Still within, so that Ctrl-C does not cut off the writing.
        verdict = _report(measurement, campaign, described or (None, ()), outputs, console())
    if failure is not None:
        raise failure
    return await _outcome(measurement, campaign, verdict)


async def _measure(measurement: Measurement, campaign: Campaign) -> None:
    first = measurement.levels[0]
    if measurement.find_max:
        assert measurement.goals is not None  # the arguments ask for it
        start = first.rate if isinstance(first.rate, int | float) else None
        await campaign.find_max(first, measurement.goals, _PRECISION, start)
    elif measurement.versus is not None:
        await campaign.pairs(first, measurement.versus, measurement.rounds)
    else:
        await campaign.sweep(measurement.levels)


def _runner(
    measurement: Measurement, images: NDArray[np.uint8] | None, stop: asyncio.Event
) -> Callable[[LoadOptions], Awaitable[LoadResult]]:
    screen = console(stderr=True)
    numbers = itertools.count(1)

    async def run_one(options: LoadOptions) -> LoadResult:
        title = f"{options.model}, {options.label}"
        if measurement.kind != "run":
            title = f"run {next(numbers)}: {title}"
        with LiveView(screen, options.longest_s, title) as live:
            result = await run_load(options, images, stop=stop, watch=live.show)
        if measurement.kind != "run" and not (screen.is_terminal or result.interrupted):
            # A search may take minutes, and each of its runs be too short for a line of its own.
            screen.print(run_line(title, result), markup=False, soft_wrap=True)
        return result

    return run_one


def _report(
    measurement: Measurement,
    campaign: Campaign,
    described: tuple[ServerInfo | None, Sequence[Model]],
    outputs: Outputs,
    screen: Console,
) -> Objective | None:
    """Print and write what was measured; gives the verdict on the objective, if there is one."""
    verdict = _verdict(measurement, campaign)
    report = report_of(
        campaign.head,
        *described,
        campaign=campaign,
        objective=verdict,
        command=measurement.command,
    )
    if report.kind == "run":
        print_load(screen, report)
    else:
        print_campaign(screen, report)
    print_limits(screen, report)
    if verdict is not None:
        sure = "green" if verdict.met else "bold red"
        screen.print(verdict.text, style=sure if verdict.decided else "yellow")
    outputs.write(report, screen)
    return verdict


def _verdict(measurement: Measurement, campaign: Campaign) -> Objective | None:
    goals = measurement.goals
    if goals is None:
        return None
    verdict = partial(Objective, goals.p99_s, attainment=goals.attainment)
    if campaign.found is not None:
        text = campaign.found.text(goals.text)
        if campaign.limited_by_client():
            text += ". This client was the bottleneck in runs that missed: try --processes"
        met = campaign.found.rate is not None
        return verdict(met=met, text=text, decided=campaign.found.complete)
    if campaign.kind == "find_max":
        text = "the search was interrupted before it could begin: no rate is known"
        return verdict(met=False, text=text, decided=False)
    if campaign.kind == "run":
        return judge(campaign.head, goals)
    verdicts = [judge(result, goals) for result in campaign.runs]
    met_by, few = sum(each.met for each in verdicts), sum(not each.decided for each in verdicts)
    text = f"objective of {goals.text} met by {met_by} of {len(verdicts)} runs"
    if few:
        text += f"; {few} had fewer than {goals.least_requests:,} requests, too few to judge: measure longer"
    return verdict(met=met_by > 0, text=text, decided=met_by > 0 or not few)


async def _outcome(
    measurement: Measurement, campaign: Campaign, verdict: Objective | None
) -> Outcome:
    last = campaign.runs[-1]
    since_s = silent_since(last)
    if since_s is not None and last.succeeded and (gone := await _gone(measurement, last)):
        raise ServerError(
            "UNAVAILABLE",
            f"the server at {gone} went away: its last answer came {since_s:.1f} s after the start "
            "of the run; what was measured is reported above",
        )
    if campaign.interrupted:
        return Outcome.INTERRUPTED
    if not any(result.requests for result in campaign.runs):
        raise InputError(
            f"no request was due in the {last.window_s:g} s that were measured: expected a longer "
            "--duration, or more load"
        )
    if verdict is not None:
        return Outcome.DONE if verdict.met else Outcome.MISSED
    if all(result.errors and not result.succeeded for result in campaign.runs):
        code = max(last.errors, key=lambda code: last.errors[code])
        raise ServerError(code, f"none of the {last.requests:,} requests succeeded")
    return Outcome.DONE


async def _gone(measurement: Measurement, run: LoadResult) -> str:
    """The first of a run's servers that cannot be reached any more; empty if all can."""
    credentials = measurement.levels[0].credentials
    for part in run.by_server:
        server = part.name
        try:
            async with AsyncClient(server, credentials=credentials, connect_timeout_s=1.0):
                pass
        except Unreachable:
            return server
    return ""


async def _describe(
    options: LoadOptions, names: Sequence[str]
) -> tuple[ServerInfo | None, Sequence[Model]]:
    """What the report tells of the first server and its models of these names.

    Nothing if it has no catalogue of ours.

    Raises:
        ServerError: It does not know the first of them, or refuses to tell.
    """
    async with AsyncClient(
        options.servers[0], credentials=options.credentials, timeout_s=options.timeout_s
    ) as client:
        try:
            info, first = await client.server_info(), await client.model(names[0])
            others = {model.name: model for model in await client.models()} if names[1:] else {}
        except ServerError as error:
            if error.code == "UNIMPLEMENTED":
                return None, ()
            raise
    return info, [first, *(others[name] for name in names[1:] if name in others)]
