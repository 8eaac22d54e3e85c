"""What this machine is and has, told without torch."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Processors(NamedTuple):
    """Those this process may use: their numbers, and how many it is given the time of.

    A container with a limit may use every processor of its host, and the time of a few.
    """

    numbers: tuple[int, ...]
    available: int

    @property
    def are_ours(self) -> bool:
        """Whether the process may keep them busy all the time."""
        return self.available == len(self.numbers)


def usable_processors() -> Processors:
    """What the kernel and the control groups allow this process."""
    numbers = tuple(sorted(os.sched_getaffinity(0)))
    return Processors(numbers, max(1, math.ceil(min(len(numbers), _cgroup_processors()))))


def cpu_count() -> int:
    """Processors whose time this process is given."""
    return usable_processors().available


def _cgroup_processors(root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> float:
    """Processors whose time the control groups give to this process; infinity without a limit."""
    limits = [math.inf]
    for line in (proc / "self" / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folder = root
        elif "cpu" in controllers.split(","):
            folder = root / controllers
        else:
            continue
        # In a container, the path may be that of the machine, and the container's own limit at the root.
        group = folder / path.lstrip("/")
        limits += [
            _cpu_limit(above) for above in (group, *group.parents) if above.is_relative_to(folder)
        ]
    return min(limits)


def _cpu_limit(group: Path) -> float:
    try:
        if (version_2 := group / "cpu.max").exists():
            quota, period = version_2.read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such group here, or "max": no limit
        return math.inf


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
