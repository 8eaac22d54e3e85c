"""Arguments that several commands of `rootserve` share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ModelName = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME", help="Name of the model; see 'models'.")
]
