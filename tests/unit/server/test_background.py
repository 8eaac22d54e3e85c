"""Work in the background does not end unnoticed."""

import asyncio
import logging

import pytest

from rootserve.server.background import background, keep_going


class Work:
    """Fails as often as told, then waits for the test, or is done."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.runs = 0
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self) -> None:
        self.runs += 1
        if self.runs <= self.failures:
            raise RuntimeError(f"failure {self.runs}")
        self.reached.set()
        await self.go.wait()


async def test_work_that_dies_is_logged_with_name_and_traceback_and_begun_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work(failures=2)
    async with background("the polishing", work, first_pause_s=0.001):
        await asyncio.wait_for(work.reached.wait(), 60)
    first, second = caplog.records
    assert first.levelno == logging.ERROR
    assert first.getMessage() == "the polishing failed and goes on in 0.0 s"
    assert vars(first)["task"] == "the polishing"
    assert "RuntimeError: failure 1" in caplog.text
    assert "Traceback" in caplog.text
    assert second.exc_info is not None
    assert vars(second)["pause_s"] == 2 * vars(first)["pause_s"], "less and less often"


async def test_work_that_is_done_is_not_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(failures=0)
    work.go.set()
    await asyncio.wait_for(keep_going("the polishing", work), 60)
    assert work.runs == 1
    assert not caplog.records


async def test_behind_the_context_nothing_goes_on() -> None:
    work, failing = Work(failures=0), Work(failures=10**9)
    async with (
        background("the polishing", work),
        background("the breaking", failing, first_pause_s=3600),
    ):
        await asyncio.wait_for(work.reached.wait(), 60)
    assert len(asyncio.all_tasks()) == 1
