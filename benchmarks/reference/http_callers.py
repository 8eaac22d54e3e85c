"""Callers in a closed loop over HTTP, for LitServe: prints the images per second that were answered."""

from __future__ import annotations

import argparse
import asyncio
import base64
import time

import aiohttp
import numpy as np


async def generate(address: str, callers: int, rows: int, seconds: float) -> float:
    """Images per second that the callers get answered."""
    images = np.random.default_rng(0).integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8)
    body = {"images": base64.b64encode(images.tobytes()).decode()}
    answered = 0

    async def call(session: aiohttp.ClientSession, end_s: float) -> None:
        nonlocal answered
        while time.perf_counter() < end_s:
            async with session.post(f"http://{address}/predict", json=body) as response:
                answer = await response.json()
            if len(answer["logits"]) != rows:
                raise RuntimeError(f"a wrong answer came: {answer}")
            answered += rows

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as session:
        warm_s = time.perf_counter() + min(0.5, seconds / 4)
        await asyncio.gather(*(call(session, warm_s) for _ in range(callers)))
        answered = 0
        began_s = time.perf_counter()
        await asyncio.gather(*(call(session, began_s + seconds) for _ in range(callers)))
        return answered / (time.perf_counter() - began_s)


def main() -> None:
    """Load a server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    print(asyncio.run(generate(args.address, args.callers, args.rows, args.seconds)))


if __name__ == "__main__":
    main()
