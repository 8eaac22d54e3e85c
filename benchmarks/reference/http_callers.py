"""Callers that speak HTTP, for LitServe: prints the images per second that were answered."""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.closed_loop import Load, images_per_second, random_images, read_options


async def generate(address: str, _model: str, load: Load, seconds: float) -> float:
    """Images per second that the callers get answered; the server has one model.

    Raises:
        RuntimeError: if an answer is not as long as its request.
    """
    body = {"images": base64.b64encode(random_images(load.rows).tobytes()).decode()}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as session:

        async def ask() -> None:
            async with session.post(f"http://{address}/predict", json=body) as response:
                answer = await response.json()
            if len(answer["logits"]) != load.rows:
                raise RuntimeError(f"a wrong answer came: {answer}")

        return await images_per_second(ask, load, seconds)


if __name__ == "__main__":
    print(asyncio.run(generate(*read_options(__doc__))))
