"""Work that gives way when the user has had enough."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work gives, or None if the stop comes first; the work is then cancelled."""
    doing = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return await doing if doing.done() else None
    finally:
        stopping.cancel()
        doing.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)


@contextmanager
def stop_after(stop: asyncio.Event, seconds: float) -> Iterator[asyncio.Event]:
    """An event that is set as soon as ``stop`` is, and ``seconds`` from now at the latest."""
    over = asyncio.Event()

    async def follow() -> None:
        await stop.wait()
        over.set()

    timer = asyncio.get_running_loop().call_later(max(0.0, seconds), over.set)
    following = asyncio.ensure_future(follow())
    try:
        yield over
    finally:
        timer.cancel()
        following.cancel()


@contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C or SIGTERM sets once; the second signal ends the program as usual."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def interrupted() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupted)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
