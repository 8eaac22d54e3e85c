"""`rootserve choose`: which variant to take, by accuracy and the highest rate that holds an objective."""

import asyncio
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from rootserve.client.choice.document import Choice, write_choice
from rootserve.client.choice.measure import Measured, Surroundings, measure
from rootserve.client.choice.page import write_html
from rootserve.client.choice.pareto import holding
from rootserve.client.choice.plan import Plan
from rootserve.client.choice.text import print_choice
from rootserve.client.credentials import Connection
from rootserve.client.dataset import read_dataset
from rootserve.client.errors import Interrupted
from rootserve.client.files import check_writable
from rootserve.client.inference import AsyncClient
from rootserve.client.stopping import stop_on_signals
from rootserve.client.tables import console
from rootserve.client.telling import telling


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where the choice goes, beside the terminal."""

    json: Path | None = None
    html: Path | None = None

    def write(self, choice: Choice, screen: Console) -> list[str]:
        """Write them; gives where they are."""
        written = []
        if self.json:
            write_choice(choice, self.json)
            written.append(str(self.json))
        if self.html:
            write_html(choice, self.html)
            written.append(str(self.html))
        if written:
            text = f"written: {', '.join(written)}"
            screen.print(text, markup=False, soft_wrap=True)
        return written


def run(connection: Connection, outputs: Outputs, plan: Plan, data: Path | None) -> bool:
    """Measure, print what follows and write the files. Gives whether a variant holds the rate asked for.

    Raises:
        InputError: A file cannot be read or written, or no such variant is served.
        Interrupted: The user ended it; what was measured is printed and written.
        ServerError: Requests failed, and likewise.
    """
    # All that can be wrong is found out before time is spent on measuring.
    for path in (outputs.json, outputs.html):
        if path:
            check_writable(path)
    plan = replace(plan, data=read_dataset(data)) if data else plan
    measured = asyncio.run(_measure(connection, plan))
    choice = replace(measured.choice, command=shlex.join(["rootserve", *sys.argv[1:]]))
    screen = console()
    print_choice(screen, choice)
    written = outputs.write(choice, screen)
    if measured.failure:
        raise measured.failure
    if choice.interrupted:
        kept = f"printed and in {', '.join(written)}" if written else "printed"
        raise Interrupted(f"interrupted; what was measured until then is {kept}")
    return plan.rate is None or bool(holding(choice.variants, plan.rate))


async def _measure(connection: Connection, plan: Plan) -> Measured:
    with stop_on_signals() as stop:
        async with AsyncClient(connection.server, credentials=connection.credentials) as client:
            with telling(console(stderr=True), "connecting") as tell:
                around = Surroundings(tell=tell, stop=stop)
                return await measure(client, connection, plan, around)
