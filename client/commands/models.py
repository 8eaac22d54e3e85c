"""`rootserve models`: what the server can serve, what it costs and how good it is."""

import asyncio
import json

from client.catalog import Model
from client.credentials import Connection
from client.inference import Client
from client.tables import console, print_models


def run(connection: Connection, *, as_json: bool) -> None:
    """Print the models as a table, or as a JSON list."""
    models = asyncio.run(_models(connection))
    if as_json:
        print(json.dumps([model.to_json() for model in models], indent=2))
    else:
        print_models(console(), models)


async def _models(connection: Connection) -> list[Model]:
    async with Client(connection.server, credentials=connection.credentials) as client:
        return await client.models()
