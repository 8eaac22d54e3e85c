"""One analysis process as the service sees it: started when it is needed, ended when it is not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import Self

from rootserve.server.analysis import messages
from rootserve.server.background import keep_going
from rootserve.server.workers.child_process import ChildProcess
from rootserve.server.workers.memory import SlotLayout, SlotMemory

_log = logging.getLogger(__name__)

_IDLE_S = 60.0
"""A process without a job is ended after this time: it holds some hundred megabytes."""

_PATIENCE_S = 5.0
"""A request that nobody waits for any more has this time to end, or the process is killed."""


class HelperLostError(Exception):
    """The process ended; what it was doing is not done."""


class Helper:
    """The process for one device. Its jobs take turns, request by request."""

    def __init__(self, device: str, threads: int) -> None:
        self.device = device
        self.threads = threads
        self._process: ChildProcess | None = None
        self._reply: asyncio.Future[messages.Reply] | None = None
        self._asked_job = 0
        self._turn = asyncio.Lock()
        self._jobs = 0
        self._paused = False
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.generation = 0
        """Rises with each start, so that jobs know that they are to be begun again."""

    @property
    def pid(self) -> int:
        """Process id, or 0 when there is no process."""
        return self._process.pid if self._process else 0

    async def close(self) -> None:
        """End the process, and wait until it has ended."""
        if self._idle is not None:
            self._idle.cancel()
        self._end("the service is shutting down")
        await asyncio.gather(*self._ending)

    def pause(self, *, paused: bool) -> None:
        """Have the kernel stop the process, wherever it is, or let it go on."""
        self._paused = paused
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGSTOP if paused else signal.SIGCONT)

    def opened(self) -> None:
        """A job has begun."""
        self._jobs += 1
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def closed(self) -> None:
        """A job has ended."""
        self._jobs -= 1
        if self._jobs == 0:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(_IDLE_S, self._end, "nothing to do")

    def turn(self) -> asyncio.Lock:
        """Held by the job whose request is under way."""
        return self._turn

    def ensure_started(self) -> None:
        """Start the process if there is none.

        Raises:
            OSError: It cannot be started.
        """
        if self._process is not None:
            return
        command = ["rootserve.server.analysis.launch", "--device", self.device]
        self._process = ChildProcess(
            f"analysis process on {self.device}",
            [*command, "--threads", str(self.threads)],
            self.threads,
            self._on_datagram,
            lambda: self._end("it has ended by itself"),
        )
        self.pause(paused=self._paused)
        self.generation += 1
        _log.info(
            "analysis process started on %s, pid %d", self.device, self.pid, extra={"pid": self.pid}
        )

    def tell(self, message: messages.Message, descriptor: int | None = None) -> None:
        """Send a message that has no reply.

        Raises:
            HelperLostError: if the process has ended.
        """
        if self._process is not None:
            descriptors = [] if descriptor is None else [descriptor]
            if self._process.send(messages.encode(message), descriptors):
                return
            self._end("it cannot be told anything")
        raise HelperLostError("the analysis process has ended")

    async def ask(self, request: messages.Request) -> messages.Reply:
        """Send ``request`` and wait for its reply. The caller holds the turn.

        However this ends, no reply is under way any more: the process is idle, or there is none.

        Raises:
            HelperLostError: if the process ended first.
        """
        reply = self._reply = asyncio.get_running_loop().create_future()
        self._asked_job = request.job
        try:
            self.tell(request)
            return await asyncio.shield(reply)
        except asyncio.CancelledError:
            # The next job must find it idle.
            with contextlib.suppress(HelperLostError, TimeoutError):
                await asyncio.wait_for(asyncio.shield(reply), _PATIENCE_S)
            raise
        finally:
            # Also if this task was cancelled once more while it waited for the end of what was cancelled.
            if not reply.done():
                self._end("it does not end what was cancelled")
            self._reply = None
            if reply.done() and not reply.cancelled():
                reply.exception()  # seen, even if nobody waits

    def _on_datagram(self, datagram: bytes) -> None:
        message = messages.decode(datagram)
        assert isinstance(message, messages.Reply)
        if self._reply is None or self._reply.done() or message.job != self._asked_job:
            self._end("it answered what was not asked")
            return
        self._reply.set_result(message)

    def _end(self, why: str) -> None:
        process = self._process
        if process is None:
            return
        self._process = None
        process.close()
        process.kill()
        # Even to end, it needs a processor that nobody else wants.
        waiting = keep_going(f"waiting for analysis process {process.pid}", process.wait)
        task = asyncio.get_running_loop().create_task(waiting)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        _log.info("analysis process on %s ended: %s", self.device, why, extra={"pid": process.pid})
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(HelperLostError(f"the analysis process ended: {why}"))


class HelperJob:
    """A job on one process, with memory of its own; survives the end of the process."""

    def __init__(self, helper: Helper, begin: messages.Begin) -> None:
        self._helper = helper
        self._begin = begin
        self._layout = SlotLayout(1, begin.input_bytes, begin.output_bytes)
        self._generation = 0

    def __enter__(self) -> Self:
        self._memory, self._descriptor = SlotMemory.create(self._layout)
        self._helper.opened()
        return self

    def __exit__(self, *_: object) -> None:
        if self._generation == self._helper.generation:
            with contextlib.suppress(HelperLostError):
                self._helper.tell(messages.End(self._begin.job))
        self._memory.close()
        os.close(self._descriptor)
        self._helper.closed()

    async def ask(
        self, request: messages.Request, content: bytes = b""
    ) -> tuple[messages.Reply, bytes]:
        """The reply to ``request`` with ``content`` as input, and all of the output.

        Raises:
            HelperLostError: if the process ended first; ask again.
        """
        async with self._helper.turn():
            self._helper.ensure_started()
            if self._generation != self._helper.generation:
                self._helper.tell(self._begin, self._descriptor)
                self._generation = self._helper.generation
            self._memory.write_input(0, (content,))
            reply = await self._helper.ask(request)
            # Read while it is our turn: the next request overwrites it.
            return reply, self._memory.read_output(0, self._layout.output_bytes)
