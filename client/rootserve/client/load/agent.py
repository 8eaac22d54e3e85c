"""One process's share of a load run: its channels, its loop, what it recorded."""

import asyncio
import gc
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

from rootserve.client.address import parse_address
from rootserve.client.channel import connect, open_aio_channel
from rootserve.client.load.arrivals import schedule_for
from rootserve.client.load.caller import Caller
from rootserve.client.load.closed_loop import ClosedLoop
from rootserve.client.load.histogram import LatencyHistogram
from rootserve.client.load.open_loop import OpenLoop
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.pacer import SharedSchedule
from rootserve.client.load.recording import Progress, Recorder, Recording
from rootserve.client.load.requests import Images, Plan, RequestPool
from rootserve.client.load.transport import StreamTransport, Transport, UnaryTransport


@dataclass(frozen=True, slots=True)
class Task:
    """What an agent needs to do its share.

    Attributes:
        options: The whole run.
        plan: The kinds of its requests.
        images: For each model uint8 [N, 3, H, W].
        part: Which share this is, from 0.
        parts: How many there are.
    """

    options: LoadOptions
    plan: Plan
    images: Mapping[str, Images]
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """An agent's recording, and how many processor cores it used while it sent."""

    recording: Recording
    cpu_cores: float


class Agent(Protocol):
    """One share of a run, in this process or in another one. To be used in this order."""

    async def open(self) -> None:
        """Connect.

        Raises:
            Unreachable: One of the servers does not answer.
        """

    async def start(self, origin_s: float) -> None:
        """Begin when `time.perf_counter` reads `origin_s`."""

    async def progress(self) -> Progress:
        """How it stands now."""

    async def answered_in(self, window: int) -> LatencyHistogram:
        """Response times of the requests answered within one of the windows."""

    async def stop(self, end_s: float) -> None:
        """Send nothing more; the last window ends at `end_s` of the run's time."""

    async def drain(self, wait_s: float) -> bool:
        """Wait so long at most for what is under way; tells whether all has come."""

    async def finish(self) -> Outcome:
        """Cut off what is still under way and give what was recorded."""

    async def close(self) -> None:
        """Free everything, at any time."""


class LocalAgent:
    """An agent in this process's event loop."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._channels = AsyncExitStack()
        self._recorder = Recorder(task.options, task.plan)
        self._caller: Caller | None = None
        self._loop: ClosedLoop | OpenLoop | None = None
        self._cpu_s = self._began_s = 0.0
        self._cpu_cores = 0.0

    async def open(self) -> None:
        """See `Agent`."""
        options = self._task.options
        pool = RequestPool(self._task.plan, self._task.images)
        transports = [await self._transport(server) for server in options.servers]
        self._caller = Caller(
            transports,
            pool,
            options.timeout_s,
            self._recorder,
            part=self._task.part,
            parts=self._task.parts,
        )
        # A full collection of what is there by now would be a pause of this side, some 50 ms long.
        gc.collect()
        gc.freeze()
        self._channels.callback(gc.unfreeze)

    async def _transport(self, server: str) -> Transport:
        options = self._task.options
        address = parse_address(server)
        channel = open_aio_channel(address, options.credentials)
        self._channels.push_async_callback(channel.close)
        await connect(channel, address, tls=options.credentials.tls)
        return StreamTransport(channel) if options.streaming else UnaryTransport(channel)

    async def start(self, origin_s: float) -> None:
        """See `Agent`."""
        assert self._caller is not None
        self._caller.start_clock(origin_s)
        self._loop = self._make_loop(self._caller)
        self._began_s, self._cpu_s = time.perf_counter(), time.process_time()
        self._loop.start()

    def _make_loop(self, caller: Caller) -> ClosedLoop | OpenLoop:
        options, part, parts = self._task.options, self._task.part, self._task.parts
        if options.concurrency is not None:
            mine = options.concurrency // parts + (part < options.concurrency % parts)
            return ClosedLoop(caller, self._recorder, mine)
        assert options.rate is not None  # LoadOptions takes exactly one of the two
        schedule = schedule_for(
            options.rate, options.distribution, options.seed, options.warmup_s, options.duration_s
        )
        share = SharedSchedule(schedule, part, parts)
        most = max(1, options.max_in_flight // parts)
        return OpenLoop(caller, self._recorder, share, most)

    async def progress(self) -> Progress:
        """See `Agent`."""
        return self._recorder.progress()

    async def answered_in(self, window: int) -> LatencyHistogram:
        """See `Agent`."""
        return self._recorder.answered_in(window)

    async def stop(self, end_s: float) -> None:
        """See `Agent`."""
        assert self._loop is not None
        self._recorder.stop(end_s)
        took_s = max(time.perf_counter() - self._began_s, 1e-9)
        self._cpu_cores = (time.process_time() - self._cpu_s) / took_s
        self._loop.stop()
        # Departures that were announced before the stop are waiting in the event loop's queue.
        await asyncio.sleep(0)

    async def drain(self, wait_s: float) -> bool:
        """See `Agent`."""
        assert self._loop is not None
        if self._loop.tasks:
            await asyncio.wait(set(self._loop.tasks), timeout=wait_s)
        return not self._loop.tasks or all(task.done() for task in self._loop.tasks)

    async def finish(self) -> Outcome:
        """See `Agent`."""
        await self._cut_off()
        return Outcome(self._recorder.recording(), self._cpu_cores)

    async def close(self) -> None:
        """See `Agent`."""
        try:
            if self._loop is not None and self._caller is not None:
                self._recorder.stop(self._caller.clock())
                self._loop.stop()
                await self._cut_off()
        finally:
            await self._channels.aclose()

    async def _cut_off(self) -> None:
        """Cancel what is still under way; an error of the client's own is not swallowed."""
        assert self._loop is not None
        tasks = list(self._loop.tasks)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
