"""What callers send is measured while it comes in, and calls that still send are ended when it is too much.

gRPC's core collects a whole message before anything here sees a byte of it, and its limit on the size of a
message is looked at only then. So what is coming in can neither be counted nor bounded beforehand; what
the process holds in all can be measured.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable

from rootserve.server.refusals import Reason, RefusalError

_log = logging.getLogger(__name__)

_INTERVAL_S = 0.05
_RETRY_AFTER_S = 0.5
_MOST_NEW = 96
_FEW_NEW = 16
"""Calls that have begun to send within the last _NEW_S and still do: others wait until it is their turn. Few
when an eighth of the limit is used; with few, many small messages would come in more slowly.
"""
_NEW_S = 1.0
_RELEASES = 8
"""Memory is given back when an eighth of the limit more is used than after the last time."""


class Memory:
    """The memory that this process has of its own."""

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        # Kept open: callers may take all descriptors there are.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def used(self) -> int:
        """Bytes, whether allocated or kept by the allocator for later."""
        _, resident, shared, *_ = os.pread(self._statm, 200, 0).split()
        return (int(resident) - int(shared)) * self._page

    def __del__(self) -> None:
        os.close(self._statm)

    def release(self) -> None:
        """Give the system what the allocator keeps, if it is glibc's: the pages of messages are many."""
        if self._trim is not None:
            self._trim(0)


class _Coming:
    """While the caller of a task sends, or what it sent waits for its turn.

    Raises RefusalError, MEMORY_FULL, within, if the call is ended.
    """

    def __init__(self, guard: MemoryGuard, *, reads: bool) -> None:
        self.ended = False
        self.counts = False
        self.began_s = math.inf
        self._guard = guard
        self._reads = reads

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task: asyncio.Task[object] = task
        self._guard.enter(self)
        if self._reads:
            try:
                await self._guard.pass_gate(self)
            except BaseException as error:
                self._leave(error)
                raise

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        self._guard.leave(self)
        cancelled = isinstance(error, asyncio.CancelledError)
        if cancelled and self.ended and not self.task.uncancel():
            raise self._guard.refusal() from None


class MemoryGuard:
    """Lets callers send while what is used, beyond what it was at first, is below ``limit``.

    Above it, calls that begin are refused, and of those that still send the younger half is ended, until
    it is below again: those that came first are the last to go. Only so many calls begin to send at a
    time: what each may bring is not known, and the processor is to look after it all.
    """

    def __init__(
        self, limit: int, used: Callable[[], int], release: Callable[[], None] = lambda: None
    ) -> None:
        self._limit = limit
        self._used = used
        self._release = release
        self._base = used()
        self._kept = 0
        """What there was when memory was released last."""
        self._looked_s = -math.inf
        self._full = False
        self._coming: dict[_Coming, None] = {}
        self._counting = 0
        self._most_new = _MOST_NEW
        self._gate: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def check(self) -> None:
        """Let a call begin.

        Raises:
            RefusalError: MEMORY_FULL.
        """
        if self._full:
            raise self.refusal()

    def sending(self, *, reads: bool = False) -> _Coming:
        """To be used with ``async with``: the caller of the running task sends; ``reads``, from now on."""
        return _Coming(self, reads=reads)

    def refusal(self) -> RefusalError:
        """For a call that is not to go on."""
        text = f"the messages of all callers take more than {self._limit >> 20} MiB"
        return RefusalError(Reason.MEMORY_FULL, text, _RETRY_AFTER_S)

    def enter(self, coming: _Coming) -> None:
        """From now on it may be ended."""
        self._coming[coming] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL_S, self._look)

    async def pass_gate(self, coming: _Coming) -> None:
        """Wait until few enough have just begun."""
        if self._counting >= self._most_new:
            turn = asyncio.get_running_loop().create_future()
            self._gate.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._counting -= 1
                    self._open_gate()
                raise
        else:
            self._counting += 1
        coming.counts = True
        coming.began_s = time.monotonic()

    def leave(self, coming: _Coming) -> None:
        """It has come."""
        del self._coming[coming]
        self._stop_counting(coming)
        if time.monotonic() - self._looked_s > _INTERVAL_S:
            self._measure()  # the timer may be late, behind many messages

    def _stop_counting(self, coming: _Coming) -> None:
        if coming.counts:
            coming.counts = False
            self._counting -= 1
            self._open_gate()

    def _open_gate(self) -> None:
        while self._gate and self._counting < self._most_new:
            turn = self._gate.popleft()
            if not turn.done():
                self._counting += 1
                turn.set_result(None)

    def _look(self) -> None:
        """Measure as long as something comes, or all is refused; also behind a measurement that failed."""
        self._timer = None
        try:
            self._measure()
        finally:
            if self._coming or self._full:
                self._timer = asyncio.get_running_loop().call_later(_INTERVAL_S, self._look)

    def _measure(self) -> None:
        self._looked_s = time.monotonic()
        used = self._used() - self._base
        if used > self._limit or used > self._kept + self._limit // _RELEASES:
            self._release()
            used = self._kept = self._used() - self._base
        self._most_new = _FEW_NEW if used > self._limit // _RELEASES else _MOST_NEW
        was_full, self._full = self._full, used > self._limit
        if self._full and not was_full:
            text = "callers' messages take more than %d MiB: calls are refused until they take less"
            _log.warning(text, self._limit >> 20)
        if self._full:
            coming_still = [coming for coming in self._coming if not coming.ended]
            for coming in coming_still[len(coming_still) // 2 :]:
                coming.ended = True
                coming.task.cancel()
        for coming in self._coming:
            # Slow ones bring little at a time: they hold nobody up.
            if coming.counts and self._looked_s - coming.began_s > _NEW_S:
                self._stop_counting(coming)
