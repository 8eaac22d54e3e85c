"""The arguments of `rootserve latency` and `rootserve explain`: what the scheduler knows, and why."""

from typing import Annotated

import typer

from rootserve.client.arguments import AsJson, ModelPatterns
from rootserve.client.credentials import Connection


def latency(
    models: ModelPatterns = "*", as_json: AsJson = False, *, connection: Connection
) -> None:
    """Tell how long batches take, as the server measured and learned it.

    One row for each kind of worker, variant, form of the input and number of images. With --json all that the
    server knows of it, which 'simulate' takes.
    """
    from rootserve.client.commands.latency import run  # noqa: PLC0415 - see the text of cli.py

    run(connection, models, as_json=as_json)


def explain(
    request_id: Annotated[
        str, typer.Argument(metavar="[ID]", help="Only requests with this id.", show_default=False)
    ] = "",
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME", help="Only requests for this model.")
    ] = "",
    outcome: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            help="Only those that ended so: 'ok', 'refused', or a reason such as 'deadline_infeasible'.",
        ),
    ] = "",
    last: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="The last N of them.")
    ] = 1,
    as_json: AsJson = False,
    *,
    connection: Connection,
) -> None:
    """Tell why requests went as they did: what waited, which variants there were, which was chosen and why.

    Of the last requests, as many as the server keeps (rootserve-server --explain N).
    """
    from rootserve.client.commands.explain import Which, run  # noqa: PLC0415 - as above

    run(connection, Which(request_id, model, outcome, last), as_json=as_json)
