"""`rootserve health`: states of the server and its models."""

import asyncio

from rich.markup import escape

from client.inference import Client
from client.tables import console, print_health, state_text

SERVING = "SERVING"


def run(server: str, model: str | None) -> bool:
    """Print the states. Returns whether the server, or the model asked about, is SERVING."""
    return asyncio.run(_one(server, model) if model else _all(server))


async def _all(server: str) -> bool:
    async with Client(server) as client:
        state = await client.health()
        print_health(console(), state, await client.models())
    return state == SERVING


async def _one(server: str, name: str) -> bool:
    async with Client(server) as client:
        # First the catalogue: it answers an unknown name with the names it knows.
        model = await client.model(name)
        state = await client.health(name)
    reason = escape(f"  {model.state_reason}") if model.state_reason else ""
    console().print(f"{name}  {state_text(state)} ({model.state}){reason}", soft_wrap=True)
    return state == SERVING
