"""The least that a front process can do: grpc.aio, and a worker process that gets whatever waits.

It checks nothing and counts nothing: one wake-up of the worker for a batch, and one of the front when it is
done. What the service takes more than this is its own: ``python -m benchmarks.reference.handover_server``.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import numpy as np
import uvloop
from tritonclient.grpc import service_pb2 as oip

from benchmarks.reference.protocol import Described, logits_response, serve_until_killed
from benchmarks.reference.same_engine import LARGEST_BATCH
from rootmodels.weights_info import weights_path
from rootserve.server.engines.base import LoadSpec
from rootserve.server.engines.registry import get_loader
from rootserve.server.machine import cpu_count

_IMAGE_BYTES = 3 * 32 * 32
_LOGITS_BYTES = 10 * 4
_OUTPUT = LARGEST_BATCH * _IMAGE_BYTES
"""Where the logits are, behind the images."""
_MEMORY_BYTES = _OUTPUT + LARGEST_BATCH * _LOGITS_BYTES
_ROWS = struct.Struct("i")

_Waiting = tuple[bytes, asyncio.Future[bytes]]


class HandoverService(Described):
    """Requests of one image wait in a list, which is a batch as soon as the worker has none."""

    def __init__(self, link: socket.socket, memory: mmap.mmap) -> None:
        self._link = link
        self._memory = memory
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._computing: list[_Waiting] = []
        self._loop.add_reader(link, self._on_done)

    async def ModelInfer(self, request: Any, context: Any = None) -> Any:  # noqa: N802
        """Answer one request."""
        return _response(request, await self._hand_over(request))

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Answer a stream of requests, side by side, in their order."""
        begun: asyncio.Queue[tuple[Any, asyncio.Future[bytes]] | None] = asyncio.Queue()

        async def read() -> None:
            async for request in requests:
                begun.put_nowait((request, self._hand_over(request)))
            begun.put_nowait(None)

        reader = asyncio.ensure_future(read())
        while call := await begun.get():
            request, logits = call
            yield oip.ModelStreamInferResponse(infer_response=_response(request, await logits))
        await reader

    def _hand_over(self, request: Any) -> asyncio.Future[bytes]:
        future = self._loop.create_future()
        self._waiting.append((request.raw_input_contents[0], future))
        if len(self._waiting) == 1:
            # Once this turn of the loop is over, so that all requests it brings are seen.
            self._loop.call_soon(self._begin)
        return future

    def _begin(self) -> None:
        if self._computing or not self._waiting:
            return
        self._computing = self._waiting[:LARGEST_BATCH]
        self._waiting = self._waiting[LARGEST_BATCH:]
        for row, (pixels, _) in enumerate(self._computing):
            self._memory[row * _IMAGE_BYTES : (row + 1) * _IMAGE_BYTES] = pixels
        self._link.send(_ROWS.pack(len(self._computing)))

    def _on_done(self) -> None:
        try:
            self._link.recv(_ROWS.size)
        except BlockingIOError:
            return
        done, self._computing = self._computing, []
        output = self._memory[_OUTPUT : _OUTPUT + len(done) * _LOGITS_BYTES]
        self._begin()
        for row, (_, future) in enumerate(done):
            if not future.done():
                future.set_result(output[row * _LOGITS_BYTES : (row + 1) * _LOGITS_BYTES])


def _response(request: Any, logits: bytes) -> Any:
    return logits_response(request, np.frombuffer(logits, np.float32).reshape(1, -1))


def compute(args: argparse.Namespace, link: socket.socket, memory: mmap.mmap) -> None:
    """Be the worker, until the front process is gone."""
    spec = LoadSpec(args.model, weights_path(args.model), "cpu", cpu_count(), args.precision)
    engine = get_loader(args.engine)(spec)
    for rows in (1, LARGEST_BATCH):
        engine.run(np.zeros((rows, 3, 32, 32), np.uint8))
    link.send(_ROWS.pack(0))  # ready
    while datagram := link.recv(_ROWS.size):
        (rows,) = _ROWS.unpack(datagram)
        images = np.frombuffer(memory, np.uint8, rows * _IMAGE_BYTES).reshape(rows, 3, 32, 32)
        logits = engine.run(images).tobytes()
        memory[_OUTPUT : _OUTPUT + len(logits)] = logits
        link.send(datagram)


async def _serve(link: socket.socket, memory: mmap.mmap) -> NoReturn:
    link.setblocking(False)
    await serve_until_killed(HandoverService(link, memory))


def main() -> int:
    """Serve until killed; the worker is a child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--precision", default="bf16")
    args = parser.parse_args()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memory = mmap.mmap(-1, _MEMORY_BYTES)  # shared with the child
    if os.fork() == 0:
        ours.close()
        compute(args, theirs, memory)
        return 0
    theirs.close()
    ours.recv(_ROWS.size)
    uvloop.run(_serve(ours, memory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
