"""`rootserve models`: what the server can serve, what it costs and how good it is."""

import asyncio
import json

from rootserve.client.catalog import Model
from rootserve.client.credentials import Connection
from rootserve.client.inference import AsyncClient
from rootserve.client.tables import console, print_models, print_weights


def run(connection: Connection, *, weights: bool, as_json: bool) -> None:
    """Print the models, or their ``weights``, as a table, or as a JSON list that has both."""
    models = asyncio.run(_models(connection))
    if as_json:
        print(json.dumps([model.to_json() for model in models], indent=2))
    elif weights:
        print_weights(console(), models)
    else:
        print_models(console(), models)


async def _models(connection: Connection) -> list[Model]:
    async with AsyncClient(connection.server, credentials=connection.credentials) as client:
        return [*await client.models(), *await client.families()]
