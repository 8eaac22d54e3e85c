"""`rootserve table8`: the paper's table of a family, measured anew on a live server."""

import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path

from client.credentials import Connection
from client.dataset import read_dataset
from client.files import check_writable, write_text
from client.inference import Client
from client.table8.figure import draw
from client.table8.measure import Plan, measure, survey
from client.table8.rows import Table, read_table
from client.table8.text import markdown, print_table
from client.tables import console


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where the table goes, beside the terminal."""

    json: Path | None = None
    markdown: Path | None = None
    figure: Path | None = None


def run(
    connection: Connection, outputs: Outputs, plan: Plan, *, data: Path | None, merge: Path | None
) -> None:
    """Measure, print the table and write the files.

    Raises:
        InputError: A file cannot be read or written.
    """
    # All that can be wrong is found out before time is spent on measuring.
    for path in (outputs.json, outputs.markdown, outputs.figure):
        if path:
            check_writable(path)
    other = read_table(merge) if merge else None
    plan = replace(plan, data=read_dataset(data)) if data else plan
    table = asyncio.run(_measure(connection, plan, other))
    screen = console()
    print_table(screen, table)
    if outputs.json:
        write_text(json.dumps(table.to_json(), indent=2, allow_nan=False) + "\n", outputs.json)
    if outputs.markdown:
        write_text(markdown(table), outputs.markdown)
    if outputs.figure:
        draw(table, outputs.figure)


async def _measure(connection: Connection, plan: Plan, other: Table | None) -> Table:
    screen = console(stderr=True)
    async with Client(connection.server, credentials=connection.credentials) as client:
        with screen.status("connecting") as status:
            table = await survey(client, plan.family)
            if other:
                table = table.merged(other)
            return await measure(client, table, plan, status.update)
