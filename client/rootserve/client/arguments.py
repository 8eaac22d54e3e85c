"""Arguments that several commands of `rootserve` share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ServedModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="Name of the model; see 'models' [default: the one that is served, if it is one].",
    ),
]
ModelName = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME", help="Name of the model; see 'models'.")
]
ModelPatterns = Annotated[
    str,
    typer.Option(
        "--models",
        metavar="GLOB",
        help="Only variants whose names match, such as 'nin-orig,nin-root-*'.",
    ),
]
