"""`rootserve table8`: the paper's table of a family, measured anew on a live server."""

import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path

from rootserve.client.credentials import Connection
from rootserve.client.dataset import read_dataset
from rootserve.client.errors import Interrupted
from rootserve.client.files import check_writable, write_text
from rootserve.client.inference import AsyncClient
from rootserve.client.stopping import stop_on_signals
from rootserve.client.table8.figure import draw
from rootserve.client.table8.measure import Measured, Plan, measure, survey
from rootserve.client.table8.rows import Table, read_table
from rootserve.client.table8.text import markdown, print_table
from rootserve.client.tables import console
from rootserve.client.telling import telling


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
        Interrupted: The user ended it; what was measured is printed and written.
        ServerError: A request failed, and likewise.
    """
    # All that can be wrong is found out before time is spent on measuring.
    for path in (outputs.json, outputs.markdown, outputs.figure):
        if path:
            check_writable(path)
    other = read_table(merge) if merge else None
    plan = replace(plan, data=read_dataset(data)) if data else plan
    measured = asyncio.run(_measure(connection, plan, other))
    table = measured.table
    print_table(console(), table)
    written = []
    if outputs.json:
        write_text(json.dumps(table.to_json(), indent=2, allow_nan=False) + "\n", outputs.json)
        written.append(str(outputs.json))
    if outputs.markdown:
        write_text(markdown(table), outputs.markdown)
        written.append(str(outputs.markdown))
    if outputs.figure and table.columns:
        draw(table, outputs.figure)
        written.append(str(outputs.figure))
    if measured.failure:
        raise measured.failure
    if not measured.complete:
        kept = f"printed and in {', '.join(written)}" if written else "printed"
        raise Interrupted(f"interrupted; what was measured until then is {kept}")


async def _measure(connection: Connection, plan: Plan, other: Table | None) -> Measured:
    screen = console(stderr=True)
    with stop_on_signals() as stop:
        async with AsyncClient(connection.server, credentials=connection.credentials) as client:
            with telling(screen, "connecting") as tell:
                table = await survey(client, plan.family, plan.models)
                if other:
                    table = table.merged(other)
                return await measure(client, table, plan, tell, stop)
