"""What a child process of the service does first."""

from __future__ import annotations

import ctypes
import signal


def leave_ending_to_the_service() -> None:
    """Called in a child: no signal at the terminal ends it, and the end of the service does.

    A Ctrl-C meant for the service must not end the child first. The kernel sends SIGKILL when the
    service ends, so that not even a hung child is left.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pr_set_pdeathsig = 1  # from linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
