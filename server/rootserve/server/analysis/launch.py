"""Entry point of an analysis process: gives every other process precedence, and only then begins.

Before anything is imported, because libraries start threads when they are, and threads keep the
scheduling class in which they were started.
"""

from __future__ import annotations

import contextlib
import os
import sys

_LOWEST_PRIORITY = 19


def run_when_idle() -> None:
    """Run in the kernel's idle class; where that is forbidden, with the lowest priority."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:  # a container may forbid it
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _LOWEST_PRIORITY)


def main() -> int:
    """``python -m rootserve.server.analysis.launch``, started by the service alone."""
    run_when_idle()
    from rootserve.server.analysis import process  # noqa: PLC0415 - see above

    return process.main()


if __name__ == "__main__":
    sys.exit(main())
