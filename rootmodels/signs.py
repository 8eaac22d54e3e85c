"""Signs of life: commands that take long say on standard error what they are at."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST_S, EVERY_S = 5.0, 10.0
"""Seconds until the first line, and from one to the next."""


@contextmanager
def signs(text: str) -> Iterator[Callable[[str], None]]:
    """Write ``text``, or what was told since, while the block takes long; what takes less says nothing.

    The block gets a function to tell what it is at now.
    """
    at = [text]
    ended = threading.Event()

    def write() -> None:
        before, pause_s = "", FIRST_S
        while not ended.wait(pause_s):
            now = at[0]
            print(f"still {now}" if now == before else now, file=sys.stderr, flush=True)
            before, pause_s = now, EVERY_S

    def tell(text: str) -> None:
        at[0] = text

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield tell
    finally:
        ended.set()
        thread.join()
