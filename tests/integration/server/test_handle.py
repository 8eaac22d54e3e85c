"""Starts of a worker that fail, however they do, leave nothing behind in the service."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootserve.server.workers import child_process, memory
from rootserve.server.workers.handle import WorkerHandle, WorkerSpec

TRIES = 25
SPEC = WorkerSpec("a", "cpu", "fake", "auto", 1, 4, 3072, 10, 2, 1000, 1000)


def descriptors() -> dict[str, str]:
    """What each open file descriptor of this process is."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except FileNotFoundError:  # that of the folder itself
            continue
    return found


def mappings() -> int:
    """How many slot memories are mapped."""
    return Path("/proc/self/maps").read_text().count("rootserve-slots")


@pytest.fixture
def _nothing_left() -> Iterator[None]:
    before, mapped = descriptors(), mappings()
    yield
    left = {name: what for name, what in descriptors().items() if name not in before}
    assert not left
    assert mappings() == mapped


def fail(*_: object, **__: object) -> None:
    raise OSError("told to fail")


def no_process(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(child_process.subprocess, "Popen", fail)


def no_program(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "executable", "/nowhere/python")


def no_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory.os, "ftruncate", fail)


def no_mapping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory.mmap, "mmap", fail)


def no_reader(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(asyncio.get_running_loop(), "add_reader", fail)


@pytest.mark.usefixtures("_nothing_left")
@pytest.mark.parametrize("cause", [no_process, no_program, no_memory, no_mapping, no_reader])
async def test_starts_that_fail_leave_no_descriptor_and_no_memory(
    cause: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cause(patch)
        for _ in range(TRIES):
            worker = WorkerHandle(SPEC, lambda *_: None, lambda _: None, lambda *_: None)
            with pytest.raises(OSError, match=r"told to fail|/nowhere/python"):
                worker.start()


@pytest.mark.usefixtures("_nothing_left")
async def test_workers_that_end_at_once_leave_no_descriptor_and_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for _ in range(TRIES):
        ended = asyncio.Event()
        worker = WorkerHandle(
            SPEC, lambda *_: None, lambda _, ended=ended: ended.set(), lambda *_: None
        )
        worker.start()
        await asyncio.wait_for(ended.wait(), 60)
        assert await worker.wait() == 1
