"""Callers in a closed loop, in a process of their own: ``python -m benchmarks.callers ADDRESS ...``.

Prints the images per second that were answered.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import uvloop
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2_grpc

from tests.support.server_process import infer_request


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
    """The same ones every time."""
    return np.random.default_rng(0).integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8)


async def generate(address: str, model: str, load: Load, seconds: float) -> float:
    """Images per second that the callers get answered."""
    request = infer_request(model, random_images(load.rows))
    answered = 0

    async def call(stub: Any, end_s: float) -> None:
        nonlocal answered
        while time.perf_counter() < end_s:
            await stub.ModelInfer(request)
            answered += load.rows

    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        warm_s = time.perf_counter() + min(0.5, seconds / 4)
        await asyncio.gather(*(call(stub, warm_s) for _ in range(load.callers)))
        answered = 0
        began_s = time.perf_counter()
        await asyncio.gather(*(call(stub, began_s + seconds) for _ in range(load.callers)))
        return answered / (time.perf_counter() - began_s)


def main() -> None:
    """Load a server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--model", required=True)
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    load = Load(args.callers, args.rows)
    print(uvloop.run(generate(args.address, args.model, load, args.seconds)))


if __name__ == "__main__":
    main()
