"""Sends one prepared request after the other and has each one's fate recorded."""

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from client.load.recording import Recorder
from client.wire import METHOD, read_timeline


class Caller:
    """Sends the pool's requests in turn. `clock` is the run's time, in seconds since its start."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        pool: Sequence[bytes],
        timeout_s: float,
        recorder: Recorder,
    ) -> None:
        # Without a serialiser the prepared bytes go out as they are.
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, Any] = channel.unary_unary(
            METHOD,
            request_serializer=None,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        self._pool = cycle(pool)
        self._timeout_s = timeout_s
        self._recorder = recorder
        self._origin_s = time.perf_counter()

    def restart_clock(self) -> None:
        """Let the run's time begin now."""
        self._origin_s = time.perf_counter()

    def clock(self) -> float:
        """The run's time."""
        return time.perf_counter() - self._origin_s

    async def probe(self) -> None:
        """Send one request that counts nowhere.

        Raises:
            grpc.aio.AioRpcError: It was refused or failed.
        """
        await self._call(next(self._pool), timeout=self._timeout_s)

    async def send(self, due_s: float | None = None) -> str | None:
        """Send one request and record what becomes of it.

        Args:
            due_s: When it was due; None means now.

        Returns:
            Name of the status code it failed with, None when it was answered.
        """
        sent_s = self.clock()
        due_s = sent_s if due_s is None else due_s
        self._recorder.departed(due_s, sent_s)
        try:
            response = await self._call(next(self._pool), timeout=self._timeout_s)
        except asyncio.CancelledError:
            self._recorder.unfinished(due_s)
            raise
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            self._recorder.failed(due_s, code)
            return code
        done_s = self.clock()
        self._recorder.succeeded_at(due_s, sent_s, done_s, read_timeline(response))
        return None
