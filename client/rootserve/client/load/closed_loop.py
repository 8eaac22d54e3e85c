"""The closed loop: a number of callers, each sending again when its last answer came."""

import asyncio
from itertools import count

from rootserve.client.load.caller import Caller
from rootserve.client.load.recording import Recorder

# Whoever finds the server gone asks again after a breath; else a restart of a second would be
# counted as ten thousand failures.
_UNAVAILABLE_PAUSE_S = 0.01


class ClosedLoop:
    """Keeps `concurrency` requests under way until the window ends."""

    def __init__(self, caller: Caller, recorder: Recorder, concurrency: int) -> None:
        self._caller = caller
        self._recorder = recorder
        self._concurrency = concurrency
        self._numbers = count()
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start all callers."""
        self.tasks = {asyncio.create_task(self._run()) for _ in range(self._concurrency)}

    def stop(self) -> None:
        """Send nothing more. The callers see by themselves that the window has ended."""

    async def _run(self) -> None:
        # A run of several processes begins at an instant in the future.
        await asyncio.sleep(max(0.0, -self._caller.clock()))
        while self._caller.clock() < self._recorder.end_s:
            if await self._caller.send(next(self._numbers)) == "UNAVAILABLE":
                await asyncio.sleep(_UNAVAILABLE_PAUSE_S)
