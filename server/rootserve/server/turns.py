"""Who waits for room in a full queue: first come, first served, for each model."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from rootserve.server.refusals import Reason, RefusalError

T = TypeVar("T")


class Turns:
    """Requests that wait to be admitted.

    Whoever has a turn tries, and either stays first or lets the next one try.

    Lives on one event loop. No turn is lost: one whose waiter is cancelled goes to the next.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(
        self, model: str, wait_s: float, admit: Callable[[], T], is_room_to_come: Callable[[], bool]
    ) -> T:
        """What ``admit`` gives as soon as it does not refuse because a queue is full.

        Raises:
            RefusalError: as ``admit`` does; QUEUE_FULL only if no room is to come; DEADLINE_EXPIRED if that
                takes longer than ``wait_s``.
        """
        try:
            async with asyncio.timeout(wait_s if math.isfinite(wait_s) else None):
                if model in self._waiting:
                    await self._wait(model, first=False)
                while True:
                    try:
                        admitted = admit()
                    except RefusalError as refusal:
                        if refusal.reason is Reason.QUEUE_FULL and is_room_to_come():
                            await self._wait(model, first=True)
                            continue
                        self.next_of(model)
                        raise
                    self.next_of(model)
                    return admitted
        except TimeoutError:
            text = "the deadline passed while the request waited for room in the queue"
            raise RefusalError(Reason.DEADLINE_EXPIRED, text) from None

    def is_free(self, model: str) -> bool:
        """Whether nobody waits for ``model``."""
        return model not in self._waiting

    async def _wait(self, model: str, *, first: bool) -> None:
        """Wait for a turn; ``first`` for one who had a turn and found no room."""
        turn = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(model, deque())
        if first:
            waiting.appendleft(turn)
        else:
            waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.next_of(model)  # the turn had just been given
            else:
                waiting.remove(turn)
                self._tidy(model)
            raise

    def next_of(self, model: str) -> None:
        """There may be room for ``model``: the first who waits has a turn."""
        waiting = self._waiting.get(model)
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        self._tidy(model)

    def next_of_all(self) -> None:
        """There may be room: the first of each model has a turn."""
        for model in list(self._waiting):
            self.next_of(model)

    def _tidy(self, model: str) -> None:
        if not self._waiting.get(model, True):
            del self._waiting[model]
