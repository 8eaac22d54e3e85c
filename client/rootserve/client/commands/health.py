"""`rootserve health`: states of the server and its models."""

import asyncio

from rich.markup import escape

from rootserve.client.catalog import Model
from rootserve.client.credentials import Connection
from rootserve.client.errors import ServerError
from rootserve.client.inference import AsyncClient
from rootserve.client.tables import console, print_health, state_text

SERVING = "SERVING"
# A token may be good for health alone; then the models' states are not told.
_NOT_PERMITTED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})


def run(connection: Connection, model: str | None) -> bool:
    """Print the states. Returns whether the server, or the model asked about, is SERVING."""
    return asyncio.run(_one(connection, model) if model else _all(connection))


async def _all(connection: Connection) -> bool:
    async with AsyncClient(connection.server, credentials=connection.credentials) as client:
        state = await client.health()
        print_health(console(), state, await _models(client))
    return state == SERVING


async def _models(client: AsyncClient) -> list[Model]:
    try:
        return [*await client.models(), *await client.families()]
    except ServerError as error:
        if error.code in _NOT_PERMITTED:
            return []
        raise


async def _one(connection: Connection, name: str) -> bool:
    async with AsyncClient(connection.server, credentials=connection.credentials) as client:
        # First the catalogue: it answers an unknown name with the names it knows.
        try:
            model = await client.model(name)
        except ServerError as error:
            if error.code not in _NOT_PERMITTED:
                raise
            model = None
        state = await client.health(name)
    reason = escape(f"  {model.state_reason}") if model and model.state_reason else ""
    detail = f" ({model.state})" if model else ""
    console().print(f"{name}  {state_text(state)}{detail}{reason}", soft_wrap=True)
    return state == SERVING
