"""What callers send is measured while it comes in, and calls that still send are ended when it is too much.

gRPC's core collects a whole message before anything here sees a byte of it, and its limit on the size of a
message is looked at only then. So what is coming in can neither be counted nor bounded beforehand; what
the process holds in all can be measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from server.core.reasons import Reason, RefusalError

_log = logging.getLogger(__name__)

_INTERVAL_S = 0.05
_RETRY_AFTER_S = 0.5


class _MallocFigures(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


class Memory:
    """The memory that this process uses."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._figures = getattr(library, "mallinfo2", None)
        self._trim = getattr(library, "malloc_trim", None)
        if self._figures is not None:
            self._figures.restype = _MallocFigures

    def used(self) -> int:
        """Bytes: with glibc what is allocated, elsewhere what is resident, freed or not."""
        if self._figures is not None:
            figures = self._figures()
            return int(figures.uordblks + figures.hblkhd)
        resident = Path("/proc/self/statm").read_text().split()[1]
        return int(resident) * 4096

    def release(self) -> None:
        """Give the system back what was freed."""
        if self._trim is not None:
            self._trim(0)


class _Coming:
    """A call that sends."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.task = task
        self.is_new = True
        self.ended = False


class MemoryGuard:
    """Lets callers send while what is used, beyond what it was at first, is below ``limit``.

    Above it, calls that begin are refused, and of those that still send the younger half is ended, until
    it is below again: the oldest ones come through.
    """

    def __init__(
        self, limit: int, used: Callable[[], int], release: Callable[[], None] = lambda: None
    ) -> None:
        self._limit = limit
        self._used = used
        self._release = release
        self._base = used()
        self._full = False
        self._coming: dict[_Coming, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def check(self) -> None:
        """Let a call begin.

        Raises:
            RefusalError: MEMORY_FULL.
        """
        if self._full:
            raise self._refusal()

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """While the caller of the running task sends, or what it sent waits for its turn.

        Raises:
            RefusalError: MEMORY_FULL, within, if it is ended.
        """
        task = asyncio.current_task()
        assert task is not None
        coming = _Coming(task)
        self._coming[coming] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL_S, self._look)
        try:
            yield
        except asyncio.CancelledError:
            if coming.ended and not task.uncancel():
                raise self._refusal() from None
            raise
        finally:
            del self._coming[coming]

    def _look(self) -> None:
        """Measure, unless nothing that came before the last look is still coming."""
        self._timer = None
        if not self._coming and not self._full:
            return
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL_S, self._look)
        old = [coming for coming in self._coming if not coming.is_new and not coming.ended]
        for coming in self._coming:
            coming.is_new = False
        if not old and not self._full:
            return
        was_full, self._full = self._full, self._used() - self._base > self._limit
        if self._full and not was_full:
            text = "callers' messages take more than %d MiB: calls are refused until they take less"
            _log.warning(text, self._limit >> 20)
        if was_full and not self._full:
            self._release()
        if self._full:
            for coming in old[len(old) // 2 :]:
                coming.ended = True
                coming.task.cancel()

    def _refusal(self) -> RefusalError:
        text = f"the messages of all callers take more than {self._limit >> 20} MiB"
        return RefusalError(Reason.MEMORY_FULL, text, _RETRY_AFTER_S)
