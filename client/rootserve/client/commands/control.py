"""`rootserve load-model`, `unload-model`, `rollback`: change what a server serves, and tell what is live."""

import asyncio
from collections.abc import Awaitable, Callable

from rich.markup import escape

from rootserve.client.catalog import Model
from rootserve.client.credentials import Connection
from rootserve.client.inference import AsyncClient
from rootserve.client.tables import WEIGHTS_ID_DIGITS, console

_Change = Callable[[AsyncClient], Awaitable[None]]


def load(connection: Connection, name: str, version: int | None) -> None:
    """Have the model served as its folder is now, in `version` if it is one."""
    _change(connection, name, lambda client: client.load_model(name, version=version))


def roll_back(connection: Connection, name: str) -> None:
    """Have the model served as before its last load."""
    _change(connection, name, lambda client: client.roll_back_model(name))


def unload(connection: Connection, name: str) -> None:
    """Have the model served no more."""
    _change(connection, name, lambda client: client.unload_model(name))


def _change(connection: Connection, name: str, change: _Change) -> None:
    before, after = asyncio.run(_changed(connection, name, change))
    console().print(
        f"{escape(name)}  {escape(_told(before))} -> {escape(_told(after))}", soft_wrap=True
    )


async def _changed(
    connection: Connection, name: str, change: _Change
) -> tuple[Model | None, Model | None]:
    """The model before and after; None while the server does not know it."""
    async with AsyncClient(connection.server, credentials=connection.credentials) as client:
        before = await _find(client, name)
        await change(client)
        return before, await _find(client, name)


async def _find(client: AsyncClient, name: str) -> Model | None:
    return next((model for model in await client.models() if model.name == name), None)


def _told(model: Model | None) -> str:
    if model is None:
        return "unknown"
    if model.state == "unloaded":
        return "not served"
    weights = (model.weights_sha256 or "untrained")[:WEIGHTS_ID_DIGITS]
    return f"version {model.version or '?'}, weights {weights}, load {model.generation or '?'}"
