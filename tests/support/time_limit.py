"""A time limit for a test that ends the processes the test has started, not the interpreter.

What hangs is nearly always a process that is waited for. When it is killed, whoever waits for it goes on, the
test fails where it stood, and those after it run. pytest-timeout (pyproject.toml) interrupts the interpreter
by a signal instead, amid native threads, which has ended it; so it is the last resort, for a test that hangs
by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

LIMIT_S = 900.0
"""Fifteen times what the slowest test takes on two processors of 2023 that have nothing else to do."""

MERCY_S = 60.0
"""After so much more, what was there before the test is ended as well: a server that tests share."""


def descendants() -> set[int]:
    """All processes that this one has started, and those that these have started."""
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        parent = waiting.pop()
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has ended
                new = set(map(int, children.read_text().split())) - found
                found |= new
                waiting += new
    return found


@contextmanager
def time_limit(
    tell: Callable[[str], None], limit_s: float = LIMIT_S, mercy_s: float = MERCY_S
) -> Iterator[None]:
    """End what is started within and runs when ``limit_s`` are over; ``tell`` gets a line that says so."""
    before = descendants()

    def end(spared: set[int], after_s: float) -> None:
        processes = descendants() - spared
        tell(f"time limit: after {after_s:g} s, the processes {sorted(processes)} are ended")
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    with ExitStack() as stack:
        for spared, after_s in ((before, limit_s), (set[int](), limit_s + mercy_s)):
            timer = threading.Timer(after_s, end, (spared, after_s))
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
        yield
