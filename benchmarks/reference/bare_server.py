"""The least there can be around the engine: grpc.aio, and a thread that computes whatever waits.

It checks nothing, counts nothing, and dies with its engine. What it answers more than the service is what the
service costs: ``python -m benchmarks.reference.bare_server``.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any, NoReturn

import numpy as np
import uvloop

from benchmarks.reference.protocol import Described, logits_response, serve_until_killed
from benchmarks.reference.same_engine import LARGEST_BATCH, read_spec
from rootserve.server.engines.base import Engine, LoadSpec
from rootserve.server.engines.openvino_cpu import load

_Waiting = tuple[bytes, asyncio.Future[Any]]


class BareService(Described):
    """Requests wait in a queue, of which the computing thread takes what there is."""

    def __init__(self, engine: Engine) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        threading.Thread(target=self._compute, args=[engine], daemon=True).start()

    async def ModelInfer(self, request: Any, context: Any = None) -> Any:  # noqa: N802
        """Answer one request."""
        future = self._loop.create_future()
        self._queue.put((request.raw_input_contents[0], future))
        logits = await future
        return logits_response(request, logits)

    def _compute(self, engine: Engine) -> NoReturn:
        while True:
            batch = [self._queue.get()]
            while len(batch) < LARGEST_BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            images = [np.frombuffer(pixels, np.uint8).reshape(-1, 3, 32, 32) for pixels, _ in batch]
            logits = engine.run(np.concatenate(images))
            ends = np.cumsum([len(some) for some in images])[:-1]
            shares = np.split(logits, ends)
            futures = [future for _, future in batch]
            self._loop.call_soon_threadsafe(_answer, futures, shares)


def _answer(futures: list[asyncio.Future[Any]], shares: list[Any]) -> None:
    for future, logits in zip(futures, shares, strict=True):
        if not future.done():
            future.set_result(logits)


async def _serve(spec: LoadSpec) -> NoReturn:
    await serve_until_killed(BareService(load(spec)))


def main() -> None:
    """Serve until killed."""
    uvloop.run(_serve(read_spec(__doc__)))


if __name__ == "__main__":
    main()
