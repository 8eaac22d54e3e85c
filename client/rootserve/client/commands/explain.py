"""`rootserve explain`: why requests went as they did."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError
from rootserve.client.explain import Choice, ExplainedBatch, Explanation
from rootserve.client.inference import AsyncClient
from rootserve.client.tables import console, figures_table, separate
from rootserve.client.units import count, duration, percent

_SHOWN = 5
"""Ids of other requests in a batch."""


@dataclass(frozen=True, slots=True)
class Which:
    """Which requests; what is empty chooses from all."""

    request_id: str
    model: str
    outcome: str
    last: int


def run(connection: Connection, which: Which, *, as_json: bool) -> None:
    """Print them, newest first.

    Raises:
        InputError: The server keeps none that are meant.
    """
    found = asyncio.run(_explain(connection, which))
    if as_json:
        print(json.dumps([one.to_json() for one in found], indent=2))
        return
    if not found:
        raise InputError("no request of that model and outcome is among those the server keeps")
    screen = console()
    for n, one in enumerate(found):
        if n:
            separate(screen)
        _print(screen, one)


async def _explain(connection: Connection, which: Which) -> list[Explanation]:
    async with AsyncClient(connection.server, credentials=connection.credentials) as client:
        return await client.explain(
            which.request_id, model=which.model, outcome=which.outcome, last=which.last
        )


def _print(screen: Console, one: Explanation) -> None:
    name = f"request {escape(one.request_id)}" if one.request_id else "a request without id"
    screen.print(f"{name} for {escape(one.model)}, {one.arrived_at}", style="bold")
    table = figures_table(screen, "", "", left=2, show_header=False)
    for key, value in (*_asked(one), *_ended(one)):
        table.add_row(key, escape(value))
    if one.batch is not None:
        for key, value in _computed(one.batch):
            table.add_row(key, escape(value))
    screen.print(table)
    if one.batch is not None and one.batch.choice is not None:
        _print_candidates(screen, one.batch, one.batch.choice)


def _asked(one: Explanation) -> Iterator[tuple[str, str]]:
    if one.rows:
        wanted = [f"{_counted(one.rows, 'image')}, priority {one.priority}"]
        if one.deadline_s is not None:
            wanted.append(f"within {duration(one.deadline_s)}")
        if one.accuracy_floor:
            wanted.append(f"accuracy at least {percent(one.accuracy_floor)}")
        if one.variants:
            wanted.append(f"by {' or '.join(one.variants)}")
        yield "asked", ", ".join(wanted)
        yield (
            "found",
            f"{_counted(one.rows_waiting, 'row')} waiting, {count(one.rows_computing)} computed",
        )
    if one.caller:
        yield "caller", one.caller


def _ended(one: Explanation) -> Iterator[tuple[str, str]]:
    ended = "answered" if one.outcome == "ok" else f"refused ({one.outcome})"
    late_s = 0.0 if one.deadline_s is None else one.total_s - one.deadline_s
    late = f", {duration(late_s)} late" if late_s > 0.0 and one.outcome == "ok" else ""
    yield "ended", f"{ended} after {duration(one.total_s)}{late}"
    if one.message:
        yield "why", one.message
    if one.promise is not None:
        earliest, floor = one.promise.earliest_s, one.promise.accuracy_floor
        fits = "no floor fits" if floor is None else f"a floor up to {percent(floor)} fits"
        yield "promise", f"earliest {duration(earliest)}, {fits}"
    if one.workers_lost:
        yield "workers", f"{one.workers_lost} died while they computed it"


def _computed(batch: ExplainedBatch) -> Iterator[tuple[str, str]]:
    accuracy = "" if batch.accuracy is None else f", accuracy {percent(batch.accuracy)}"
    beside = ", beside others" if batch.beside else ""
    yield "by", f"{batch.variant}{accuracy}, on {batch.worker}{beside}"
    held = f"{_counted(batch.rows, 'image')} of {_counted(batch.requests, 'request')}"
    yield "batch", f"{held}{_others(batch)}"
    expected = "nothing predicted"
    if batch.predicted_s is not None:
        expected = f"predicted at most {duration(batch.predicted_s)}"
    yield (
        "times",
        (
            f"queue {duration(batch.queue_s)}, batch wait {duration(batch.batch_wait_s)}, compute "
            f"{duration(batch.compute_s)} ({expected})"
        ),
    )
    choice = batch.choice
    if choice is not None:
        slack = "no deadline" if choice.slack_s is None else f"slack {duration(choice.slack_s)}"
        yield (
            "chosen",
            (
                f"{choice.reason} ({slack}, {count(choice.waiting)} waiting, {choice.rate:,.0f} rows/s "
                "coming)"
            ),
        )


def _counted(number: int, name: str) -> str:
    return f"{count(number)} {name}{'' if number == 1 else 's'}"


def _others(batch: ExplainedBatch) -> str:
    names: Sequence[str] = batch.shared_with
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f", with {', '.join(names[:_SHOWN])}{more}"


def _print_candidates(screen: Console, batch: ExplainedBatch, choice: Choice) -> None:
    table = figures_table(screen, "candidate", "verdict", "images", "done after", left=2)
    for one in choice.candidates:
        chosen = " *" if (one.variant, one.rows) == (batch.variant, batch.rows) else ""
        table.add_row(
            escape(one.variant) + chosen,
            escape(one.verdict),
            count(one.rows),
            duration(one.finish_s),
        )
    if choice.candidates:
        screen.print(table)
