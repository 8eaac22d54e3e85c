"""`rootserve latency`: how long batches take."""

import asyncio
import json
from fnmatch import fnmatchcase

from rich.markup import escape

from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError
from rootserve.client.explain import Latency, LatencyTable
from rootserve.client.inference import AsyncClient
from rootserve.client.tables import console, figures_table
from rootserve.client.units import count, duration


def run(connection: Connection, patterns: str, *, as_json: bool) -> None:
    """Print the table, or the server's own document.

    Raises:
        InputError: No variant matches the patterns.
    """
    table = asyncio.run(_table(connection))
    if as_json:
        print(json.dumps(table.document, indent=2))
        return
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    found = [
        one for one in table.latencies if any(fnmatchcase(one.model, pattern) for pattern in wanted)
    ]
    if not found:
        names = ", ".join(dict.fromkeys(one.model for one in table.latencies)) or "no models"
        raise InputError(f"models {patterns!r}: matches none of {names}")
    screen = console()
    for kind in dict.fromkeys(one.worker_kind for one in found):
        screen.print(f"workers on {escape(kind or 'a device without a name')}")
        heads = ("model", "form", "images", "batches", "p50", "p99", "images/s")
        rows = figures_table(screen, *heads, left=2)
        for one in (each for each in found if each.worker_kind == kind):
            rows.add_row(escape(one.model), one.form, *_figures(one))
        screen.print(rows)


def _figures(one: Latency) -> tuple[str, ...]:
    rate = f"{one.rows / one.p50_s:,.0f}" if one.p50_s else "-"
    return count(one.rows), count(one.count), duration(one.p50_s), duration(one.p99_s), rate


async def _table(connection: Connection) -> LatencyTable:
    async with AsyncClient(connection.server, credentials=connection.credentials) as client:
        return await client.latency_table()
