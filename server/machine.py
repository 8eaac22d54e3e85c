"""What this machine is and has, told without torch."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path


def cpu_name() -> str:
    """The processor, as Linux names it."""
    return _cpuinfo("model name") or platform.machine()


def cpu_features() -> str:
    """Its instruction sets, as Linux lists them; virtual machines give different processors one name."""
    return _cpuinfo("flags")


def _cpuinfo(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return ""


def cpu_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def cache_folder() -> Path | None:
    """Where this user's caches of this program belong (XDG base directories); None if nowhere."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "rootserve"
    except RuntimeError:  # no home directory
        return None


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
