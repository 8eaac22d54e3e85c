"""Memory of callers: who is let in, who waits, who is ended, with a memory that the test sets."""

import asyncio
import mmap
from collections.abc import Callable

import pytest

from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire import memory_guard
from rootserve.server.wire.memory_guard import Memory, MemoryGuard

LIMIT = 100


class FakeMemory:
    def __init__(self) -> None:
        self.bytes = 1000
        self.released = 0

    def used(self) -> int:
        return self.bytes

    def release(self) -> None:
        self.released += 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_guard, "_INTERVAL_S", 0.001)


async def send(guard: MemoryGuard, done: asyncio.Event) -> str:
    try:
        async with guard.sending(reads=True):
            await done.wait()
    except RefusalError as refusal:
        return f"{refusal.reason.name} {refusal.retry_after_s}"
    return "came"


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of tests
        await asyncio.sleep(0.001)


async def test_above_the_limit_new_calls_are_refused_and_the_oldest_come_through() -> None:
    memory, done = FakeMemory(), asyncio.Event()
    guard = MemoryGuard(LIMIT, memory.used, memory.release)

    async def send_much() -> str:
        memory.bytes += 15
        outcome = await send(guard, done)
        memory.bytes -= 15
        return outcome

    calls = [asyncio.ensure_future(send_much()) for _ in range(6)]
    await asyncio.sleep(0.01)
    assert not any(call.done() for call in calls)
    calls += [asyncio.ensure_future(send_much()) for _ in range(2)]
    await until(calls[7].done)
    with pytest.raises(RefusalError) as caught:
        guard.check()
    assert caught.value.reason is Reason.MEMORY_FULL
    await asyncio.sleep(0.01)
    guard.check()
    done.set()
    assert await asyncio.gather(*calls) == 4 * ["came"] + 4 * ["MEMORY_FULL 0.5"]


async def test_even_the_last_one_is_ended_when_it_brings_too_much() -> None:
    memory = FakeMemory()
    guard = MemoryGuard(LIMIT, memory.used)
    call = asyncio.ensure_future(send(guard, asyncio.Event()))
    await asyncio.sleep(0)
    memory.bytes += LIMIT + 1
    assert await call == "MEMORY_FULL 0.5"


async def test_what_the_allocator_keeps_is_given_back_before_anyone_is_ended() -> None:
    memory, done = FakeMemory(), asyncio.Event()

    def release() -> None:
        memory.released += 1
        memory.bytes = 1000

    guard = MemoryGuard(LIMIT, memory.used, release)
    call = asyncio.ensure_future(send(guard, done))
    await asyncio.sleep(0)
    memory.bytes += 2 * LIMIT
    await until(lambda: memory.released > 0)
    done.set()
    assert await call == "came"


async def test_few_begin_at_a_time_and_slow_ones_hold_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_guard, "_MOST_NEW", 2)
    monkeypatch.setattr(memory_guard, "_NEW_S", 3600.0)
    monkeypatch.setattr(memory_guard, "_FEW_NEW", 2)
    memory, never = FakeMemory(), asyncio.Event()
    guard = MemoryGuard(LIMIT, memory.used)
    slow = [asyncio.ensure_future(send(guard, never)) for _ in range(2)]
    await asyncio.sleep(0)
    done = asyncio.Event()
    done.set()
    late = [asyncio.ensure_future(send(guard, done)) for _ in range(3)]
    await asyncio.sleep(0.02)
    assert not any(call.done() for call in late)
    late.pop().cancel()  # leaves the line
    monkeypatch.setattr(memory_guard, "_NEW_S", 0.0)
    assert await asyncio.gather(*late) == ["came", "came"]
    assert not any(call.done() for call in slow)
    never.set()
    await asyncio.gather(*slow)


async def test_a_caller_that_cancels_is_not_told_of_memory() -> None:
    guard = MemoryGuard(LIMIT, FakeMemory().used)
    call = asyncio.ensure_future(send(guard, asyncio.Event()))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def test_the_memory_of_this_process_is_measured() -> None:
    memory = Memory()
    before = memory.used()
    # From the system: the allocator may have as much at hand from earlier tests.
    block = mmap.mmap(-1, 2**26, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.write(b"x" * 2**26)
    assert memory.used() - before > 2**25
    block.close()
    memory.release()
    assert memory.used() - before < 2**25


async def test_a_measurement_that_fails_does_not_leave_everything_refused() -> None:
    memory = FakeMemory()
    failures: list[OSError] = []

    def used() -> int:
        if failures:
            raise failures.pop()
        return memory.bytes

    guard = MemoryGuard(LIMIT, used)
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    call = asyncio.ensure_future(send(guard, asyncio.Event()))
    await asyncio.sleep(0)
    memory.bytes += LIMIT + 1
    assert await call == "MEMORY_FULL 0.5"
    failures.append(OSError("too many open files"))
    await until(lambda: not failures)
    memory.bytes -= LIMIT

    def is_open() -> bool:
        try:
            guard.check()
        except RefusalError:
            return False
        return True

    await asyncio.wait_for(until(is_open), 60)
    assert [str(context["exception"]) for context in told] == ["too many open files"]
