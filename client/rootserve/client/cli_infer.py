"""The arguments of `rootserve infer`."""

from pathlib import Path
from typing import Annotated

import typer

from rootserve.client.arguments import AsJson, ServedModel
from rootserve.client.credentials import Connection


def infer(  # noqa: PLR0913, PLR0917 - one per option of the command
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Pictures of any size and format.")
    ],
    model: ServedModel = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name per picture.")] = 5,
    deadline_ms: Annotated[
        float | None, typer.Option(metavar="MS", min=1, help="Time the server has for a request.")
    ] = None,
    floor: Annotated[
        float | None,
        typer.Option(
            "--accuracy-floor",
            metavar="SHARE",
            min=0,
            max=1,
            help="Least accuracy of the variant that computes, as in 0.9.",
        ),
    ] = None,
    variants: Annotated[
        str,
        typer.Option(metavar="NAME,...", help="Of a family such as nin-auto: only these variants."),
    ] = "",
    request_id: Annotated[
        str,
        typer.Option(
            "--id", metavar="ID", help="What `rootserve explain` and logs call the request."
        ),
    ] = "",
    as_json: AsJson = False,
    *,
    connection: Connection,
) -> None:
    """Classify pictures, in as few requests as they fit.

    JPEG and PNG files are sent as they are; the server turns them upright, and resizes and crops them to what
    the model takes. Very large ones and other formats are encoded anew before.
    """
    from rootserve.client.commands.infer import Wanted, run  # noqa: PLC0415 - see the text of cli.py
    from rootserve.client.commands.only_model import only_model  # noqa: PLC0415

    deadline_s = None if deadline_ms is None else deadline_ms / 1e3
    names = tuple(name for part in variants.split(",") if (name := part.strip()))
    wanted = Wanted(model or only_model(connection), deadline_s, floor, names, request_id)
    run(connection, images, wanted, top, as_json=as_json)
