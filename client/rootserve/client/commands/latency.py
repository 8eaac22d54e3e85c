"""`rootserve latency`: how long batches take."""

import asyncio
import json
from fnmatch import fnmatchcase

from rich.markup import escape

from rootserve.client.catalog import ServerInfo
from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError
from rootserve.client.explain import Latency, LatencyTable
from rootserve.client.inference import AsyncClient
from rootserve.client.tables import console, figures_table
from rootserve.client.units import count, duration

_VARIANTS = {"members": "variant", "latency": "model", "averages": "model"}
"""Lists of the document, and where each entry tells its variant."""


def run(connection: Connection, patterns: str, *, as_json: bool) -> None:
    """Print the table, or as JSON all that is known of these variants, and of the server.

    Raises:
        InputError: No variant matches the patterns.
    """
    table, server = asyncio.run(_ask(connection))
    wanted = [pattern.strip() for pattern in patterns.split(",")]

    def chosen(model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in wanted)

    found = [one for one in table.latencies if chosen(one.model)]
    if not found:
        names = ", ".join(dict.fromkeys(one.model for one in table.latencies)) or "no models"
        raise InputError(f"models {patterns!r}: matches none of {names}")
    if as_json:
        document = {
            key: [each for each in value if chosen(each[_VARIANTS[key]])]
            if key in _VARIANTS
            else value
            for key, value in table.document.items()
        }
        print(json.dumps({**document, "server": server.to_json()}, indent=2))
        return
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


async def _ask(connection: Connection) -> tuple[LatencyTable, ServerInfo]:
    async with AsyncClient(connection.server, credentials=connection.credentials) as client:
        return await client.latency_table(), await client.server_info()
