"""The processors of a container with a limit, told from files like those of the kernel."""

import math
from pathlib import Path

import pytest

from rootserve.server import machine


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path


def processors(root: Path, lines: str, **files: str) -> float:
    (root / "proc" / "self" / "cgroup").write_text(lines)
    for path, text in files.items():
        file = root / "fs" / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return machine._cgroup_processors(root / "fs", root / "proc")


def test_no_limit(cgroup: Path) -> None:
    assert processors(cgroup, "0::/\n") == math.inf
    assert processors(cgroup, "0::/\n", **{"cpu.max": "max 100000\n"}) == math.inf
    one = {"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"}
    assert processors(cgroup, "4:cpu,cpuacct:/\n", **one) == math.inf


def test_version_2(cgroup: Path) -> None:
    assert processors(cgroup, "0::/\n", **{"cpu.max": "150000 100000\n"}) == 1.5


def test_the_narrowest_of_the_groups_above_counts(cgroup: Path) -> None:
    limits = {"a__cpu.max": "200000 100000\n", "a__b__cpu.max": "400000 100000\n"}
    assert processors(cgroup, "0::/a/b/c\n", **limits) == 2


def test_version_1(cgroup: Path) -> None:
    limits = {
        "cpu,cpuacct__d__cpu.cfs_quota_us": "50000",
        "cpu,cpuacct__d__cpu.cfs_period_us": "100000",
    }
    assert processors(cgroup, "5:memory:/d\n4:cpu,cpuacct:/d\n0::/\n", **limits) == 0.5


def test_the_path_of_the_machine_is_no_folder_in_a_container(cgroup: Path) -> None:
    limits = {"cpu__cpu.cfs_quota_us": "300000", "cpu__cpu.cfs_period_us": "100000"}
    assert processors(cgroup, "4:cpu:/docker/0123\n", **limits) == 3


@pytest.mark.parametrize(
    ("limit", "available", "are_ours"),
    [(math.inf, 3, True), (3, 3, True), (2.5, 3, True), (1.5, 2, False), (0.1, 1, False)],
)
def test_processors_that_can_be_used(
    monkeypatch: pytest.MonkeyPatch, limit: float, available: int, *, are_ours: bool
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {7, 3, 2})
    monkeypatch.setattr(machine, "_cgroup_processors", lambda: limit)
    found = machine.usable_processors()
    assert found == ((2, 3, 7), available)
    assert found.are_ours is are_ours
    assert machine.cpu_count() == available
