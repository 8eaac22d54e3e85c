"""What this machine is and has, told without torch."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path


def cpu_name() -> str:
    """The processor, as Linux names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def cpu_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def cuda_device_count() -> int:
    """CUDA devices that torch can use.

    Asked of a short-lived process, because this one must not import torch, and only where the kernel
    shows a device at all.
    """
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    program = "import torch; print(torch.cuda.device_count())"
    result = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    return int(result.stdout) if result.returncode == 0 else 0
