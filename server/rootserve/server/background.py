"""Work that goes on beside the requests for as long as the service runs, and must not end unnoticed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

_log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


async def keep_going(
    name: str, work: Callable[[], Awaitable[object]], *, first_pause_s: float = FIRST_PAUSE_S
) -> None:
    """Do ``work`` until it is done; when it raises, log ``name`` and the traceback, and do it again.

    Waits before that, twice as long each time: work that can never succeed costs a few lines in the log.
    """
    pause_s = first_pause_s
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - whatever it is, it may be over at the next try
            fields = {"task": name, "pause_s": pause_s}
            _log.exception("%s failed and goes on in %.1f s", name, pause_s, extra=fields)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            return


@contextlib.asynccontextmanager
async def background(
    name: str, work: Callable[[], Awaitable[object]], *, first_pause_s: float = FIRST_PAUSE_S
) -> AsyncIterator[None]:
    """A context in which ``work`` is kept going; cancelled behind it."""
    task = asyncio.create_task(keep_going(name, work, first_pause_s=first_pause_s), name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
