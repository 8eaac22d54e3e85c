"""Callers in a closed loop: each asks again as soon as it is answered. Whatever the protocol they speak."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Load:
    """``callers`` in a closed loop, each with one request of ``rows`` images under way."""

    callers: int
    rows: int

    @property
    def name(self) -> str:
        """For a table."""
        return f"{self.callers} x {self.rows}"


def random_images(rows: int) -> NDArray[np.uint8]:
    """Images [rows, 3, 32, 32], the same ones every time."""
    return np.random.default_rng(0).integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8)


async def images_per_second(
    ask: Callable[[], Awaitable[object]], load: Load, seconds: float
) -> float:
    """What the callers get answered; ``ask`` sends one request and returns when it is answered."""

    async def call(end_s: float) -> int:
        answered = 0
        while time.perf_counter() < end_s:
            await ask()
            answered += load.rows
        return answered

    warm_s = time.perf_counter() + min(0.5, seconds / 4)
    await asyncio.gather(*(call(warm_s) for _ in range(load.callers)))
    began_s = time.perf_counter()
    answered = sum(await asyncio.gather(*(call(began_s + seconds) for _ in range(load.callers))))
    return answered / (time.perf_counter() - began_s)


def read_options(description: str | None) -> tuple[str, str, Load, float]:
    """From the command line: an address, a model, how it is loaded, and for how many seconds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("address")
    parser.add_argument("--model", required=True)
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    return args.address, args.model, Load(args.callers, args.rows), args.seconds
