"""What the service's own child processes have in common."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

import rootmodels
import rootserve


def environment(threads: int) -> dict[str, str]:
    """The environment of a child that imports this package and computes with ``threads``."""
    # A namespace has a path for each of its parts.
    packages = [*rootserve.__path__, *rootmodels.__path__]
    roots = dict.fromkeys(str(Path(package).parent) for package in packages)
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*roots, path] if path else roots),
        "OMP_NUM_THREADS": str(max(1, threads)),
    }


def leave_ending_to_the_service() -> None:
    """Called in a child: no signal at the terminal ends it, and the end of the service does.

    A Ctrl-C meant for the service must not end the child first. The kernel sends SIGKILL when the
    service ends, so that not even a hung child is left.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pr_set_pdeathsig = 1  # from linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
