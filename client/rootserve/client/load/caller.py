"""Sends prepared requests and has each one's fate recorded."""

import asyncio
import time
from collections.abc import Sequence

from rootserve.client.load.recording import Recorder
from rootserve.client.load.requests import RequestPool
from rootserve.client.load.transport import CallFailed, Transport
from rootserve.client.wire import read_chosen, read_timeline


class Caller:
    """Sends the requests of a pool, to each server in turn.

    Args:
        transports: A way to each server.
        pool: The requests.
        timeout_s: How long an answer is waited for.
        recorder: Is told what becomes of each one.
        part: Which of the `parts` processes this is, counted from 0.
        parts: How many processes share the requests.
    """

    def __init__(
        self,
        transports: Sequence[Transport],
        pool: RequestPool,
        timeout_s: float,
        recorder: Recorder,
        *,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        self._transports = transports
        self._pool = pool
        self._timeout_s = timeout_s
        self._recorder = recorder
        self._part = part
        self._parts = parts
        self._origin_s = time.perf_counter()

    def start_clock(self, origin_s: float) -> None:
        """Let the run's time begin at this reading of `time.perf_counter`."""
        self._origin_s = origin_s

    def clock(self) -> float:
        """The run's time in seconds."""
        return time.perf_counter() - self._origin_s

    def kind_of(self, n: int) -> int:
        """Index of the kind of this process's request `n`."""
        return self._pool.body(n * self._parts + self._part)[1]

    async def send(self, n: int, due_s: float | None = None) -> str | None:
        """Send this process's request `n` and record what becomes of it.

        Args:
            n: Counted from 0 within this process.
            due_s: When it was due; None means now.

        Returns:
            Name of the status code it failed with, None when it was answered.
        """
        body, kind = self._pool.body(n * self._parts + self._part)
        # Processes begin with different servers.
        server = (n + self._part) % len(self._transports)
        sent_s = self.clock()
        due_s = sent_s if due_s is None else due_s
        self._recorder.departed(due_s, sent_s)
        try:
            response = await self._transports[server].call(body, self._timeout_s)
        except asyncio.CancelledError:
            self._recorder.unfinished(due_s, kind, server)
            raise
        except CallFailed as failure:
            self._recorder.failed(due_s, failure.code, kind, server, self.clock(), failure.reason)
            return failure.code
        done_s = self.clock()
        told = read_timeline(response)
        self._recorder.succeeded_at(
            due_s, sent_s, done_s, told, kind, server, read_chosen(response)
        )
        return None
