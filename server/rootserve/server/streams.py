"""The standard streams: the service does without any of them that is closed, or that nobody reads."""

from __future__ import annotations

import contextlib
import logging
import os
import sys

_log = logging.getLogger(__name__)


def open_closed_streams() -> None:
    """Have closed ones lead to /dev/null. To be called before anything is opened that stays open.

    The first socket would otherwise take the number of the closed stream, and what libraries and workers say
    there would go into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            assert opened == number, f"{name} is closed, and its number is taken"
            os.set_inheritable(opened, True)
            setattr(sys, name, os.fdopen(opened, "w" if number else "r"))


def announce(line: str) -> None:
    """Say ``line`` on standard output; a full disk, or a reader that has gone, is no reason not to serve."""
    try:
        print(line, flush=True)
    except OSError as error:
        _log.warning("standard output: %s", error.strerror)


def flush_streams() -> None:
    """Before the process ends without Python's own clearing up."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
