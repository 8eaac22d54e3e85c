"""The commands of `rootserve` that change what a server serves; as in `rootserve.client.cli`."""

from typing import Annotated

import typer

from rootserve.client.credentials import Connection

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name; see 'models'.")]


def load_model(
    name: _Name,
    version: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="This version [default: the latest]."),
    ] = None,
    *,
    connection: Connection,
) -> None:
    """Serve a model with the weights that the server's folder has now; no request fails meanwhile.

    A server that was started with --model-control explicit does so.
    """
    from rootserve.client.commands.control import load  # noqa: PLC0415 - see the module's text

    load(connection, name, version)


def unload_model(name: _Name, *, connection: Connection) -> None:
    """Serve a model no more, once what waits for it is answered."""
    from rootserve.client.commands.control import unload  # noqa: PLC0415 - see the module's text

    unload(connection, name)


def rollback(name: _Name, *, connection: Connection) -> None:
    """Serve a model with the weights that were live before its last load."""
    from rootserve.client.commands.control import roll_back  # noqa: PLC0415 - see the module's text

    roll_back(connection, name)


CONTROL_COMMANDS = {"load-model": load_model, "unload-model": unload_model, "rollback": rollback}
"""By the name they are called with."""
