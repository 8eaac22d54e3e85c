"""Agents in processes of their own, for loads that one Python process cannot send."""

import asyncio
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from rootserve.client.load.agent import LocalAgent, Outcome, Task
from rootserve.client.load.histogram import LatencyHistogram
from rootserve.client.load.recording import Progress

_START_S = 60.0
_ANSWER_S = 30.0
_DEAF_TO = {signal.SIGINT, signal.SIGTERM}


class AgentLost(Exception):  # noqa: N818 - a state, as the client's other errors are named
    """An agent's process has ended, or answers no more."""


class RemoteAgent:
    """An agent in a spawned process, asked over a pipe: (method, arguments), then its answer."""

    def __init__(self, task: Task) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, task), daemon=True)
        # Ctrl-C reaches every process of a terminal: what becomes of it is decided here alone, so
        # the child is born deaf to it. It ends when the pipe does.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF_TO)
        try:
            self._process.start()
        except BaseException:
            self._pipe.close()
            raise
        finally:
            # Not unblocked: who had blocked them before wants them so.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    async def open(self) -> None:
        """See `rootserve.client.load.agent.Agent`."""
        await self._ask("open", within_s=_START_S)

    async def start(self, origin_s: float) -> None:
        """See `rootserve.client.load.agent.Agent`."""
        await self._ask("start", origin_s)

    async def progress(self) -> Progress:
        """See `rootserve.client.load.agent.Agent`."""
        progress: Progress = await self._ask("progress")
        return progress

    async def answered_in(self, window: int) -> LatencyHistogram:
        """See `rootserve.client.load.agent.Agent`."""
        histogram: LatencyHistogram = await self._ask("answered_in", window)
        return histogram

    async def stop(self, end_s: float) -> None:
        """See `rootserve.client.load.agent.Agent`."""
        await self._ask("stop", end_s)

    async def drain(self, wait_s: float) -> bool:
        """See `rootserve.client.load.agent.Agent`."""
        return bool(await self._ask("drain", wait_s, within_s=wait_s + _ANSWER_S))

    async def finish(self) -> Outcome:
        """See `rootserve.client.load.agent.Agent`."""
        outcome: Outcome = await self._ask("finish")
        return outcome

    async def close(self) -> None:
        """See `rootserve.client.load.agent.Agent`."""
        # The child ends when the pipe does; one that does not is not waited for.
        self._pipe.close()
        await asyncio.to_thread(self._process.join, 2.0)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)
        self._process.close()

    async def _ask(self, method: str, *arguments: Any, within_s: float = _ANSWER_S) -> Any:
        try:
            self._pipe.send((method, arguments))
            async with asyncio.timeout(within_s):
                await _readable(self._pipe)
            answer = self._pipe.recv()
        except (EOFError, OSError, TimeoutError) as error:
            raise AgentLost(f"client process {self._process.pid} has ended") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


async def _readable(pipe: Connection) -> None:
    """Wait until something can be read from the pipe, or it has ended."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(pipe.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(pipe.fileno())


def _serve(pipe: Connection, task: Task) -> None:
    """The child's whole life."""
    asyncio.run(_answer(pipe, LocalAgent(task)))


async def _answer(pipe: Connection, agent: LocalAgent) -> None:
    methods: dict[str, Callable[..., Any]] = {
        name: getattr(agent, name)
        for name in ("open", "start", "progress", "answered_in", "stop", "drain", "finish")
    }
    try:
        while True:
            await _readable(pipe)
            method, arguments = pipe.recv()
            try:
                answer = await methods[method](*arguments)
            except Exception as error:  # noqa: BLE001 - it is raised in the other process
                answer = error
            pipe.send(answer)
    except (EOFError, OSError):
        # The parent has closed its end, or is gone.
        return
    finally:
        await agent.close()
