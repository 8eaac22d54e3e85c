"""The model that is meant where none is named: the one that is served."""

import asyncio
from collections.abc import Sequence

from rootserve.client.catalog import Model
from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError
from rootserve.client.inference import AsyncClient

_SHOWN = 10


def only_model(connection: Connection) -> str:
    """Its name.

    Raises:
        InputError: Several are served, or none; the message names them.
    """
    names, families = asyncio.run(_served(connection))
    if len(names) == 1:
        return names[0]
    names += families
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    found = f"{', '.join(names[:_SHOWN])}{more}" if names else "none"
    raise InputError(f"no --model: expected one of those that the server serves ({found})")


async def _served(connection: Connection) -> tuple[list[str], list[str]]:
    """The models that are served, and the families that are served as one."""
    first = connection.server.partition(",")[0].strip()
    async with AsyncClient(first, credentials=connection.credentials) as client:
        models, families = await client.models(), await client.families()
    return _ready(models), _ready(families)


def _ready(models: Sequence[Model]) -> list[str]:
    return [model.name for model in models if model.state == "ready"]
