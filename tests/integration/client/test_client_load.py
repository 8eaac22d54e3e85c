"""The load generator against a fake server. Asserts orders and shares, never tight times."""

import asyncio
import signal

import grpc
import numpy as np
import pytest

from rootserve.client.errors import InputError, ServerError, Unreachable
from rootserve.client.load import Distribution, LoadOptions, Snapshot, run_load
from rootserve.client.load.agent import LocalAgent, Task
from rootserve.client.load.processes import RemoteAgent
from rootserve.client.load.requests import plan_for
from tests.integration.client.fake_rootserve import BATCH_ROWS, COMPUTE_S, FakeRootserve


def options(fake: FakeRootserve, **changes: object) -> LoadOptions:
    settings = {"duration_s": 0.4, "warmup_s": 0.1, "timeout_s": 10.0} | changes
    return LoadOptions(model="nin-orig", server=fake.address, **settings)


async def test_closed_loop_keeps_its_concurrency(fake: FakeRootserve) -> None:
    fake.delay_s = 0.01
    result = await run_load(options(fake, concurrency=3, rows=4))
    assert result.errors == {}
    assert result.unfinished == 0
    assert 0 < result.requests == result.succeeded
    # Three callers, each at most every 10 ms, four rows each, and a little for the ends.
    assert 0 < result.throughput_rows_per_s <= 1.1 * 3 * 4 / 0.01
    assert result.throughput_rows_per_s == pytest.approx(4 * result.throughput_requests_per_s)
    assert result.response_time_s == result.service_time_s
    assert result.response_time_s.min is not None
    assert result.response_time_s.min >= 0.01
    assert result.late_departures == 0
    # The probe and the warm-up are counted nowhere.
    assert result.requests < len(fake.requests)


async def test_stages_are_the_servers_own(fake: FakeRootserve) -> None:
    result = await run_load(options(fake, concurrency=1))
    assert result.stages_s is not None
    assert result.stages_s["compute"] == pytest.approx(COMPUTE_S)
    assert result.mean_batch_rows == BATCH_ROWS
    assert result.stages_s["outside_server"] >= 0


async def test_images_are_sent_in_turn(fake: FakeRootserve) -> None:
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.ones((1, 3, 32, 32), np.uint8)
    await run_load(options(fake, concurrency=1, rows=2, deadline_s=0.5, priority=2), images)
    # The first one is the probe, which is the first request once more.
    firsts = [request.raw_input_contents[0][:: 3 * 32 * 32] for request in fake.requests[1:5]]
    assert [list(first) for first in firsts] == [[0, 1], [2, 3], [4, 0], [1, 2]]
    assert fake.requests[0].parameters["deadline_ms"].int64_param == 500
    assert fake.requests[0].parameters["priority"].int64_param == 2


async def test_random_images_follow_the_seed(fake: FakeRootserve) -> None:
    await run_load(options(fake, concurrency=1, duration_s=0.05, seed=5))
    sent = len(fake.requests)
    await run_load(options(fake, concurrency=1, duration_s=0.05, seed=5))
    assert fake.requests[0].raw_input_contents == fake.requests[sent].raw_input_contents
    await run_load(options(fake, concurrency=1, duration_s=0.05, seed=6))
    assert fake.requests[0].raw_input_contents != fake.requests[-1].raw_input_contents


@pytest.mark.parametrize("distribution", Distribution)
async def test_open_loop_sends_at_its_rate(fake: FakeRootserve, distribution: Distribution) -> None:
    result = await run_load(
        options(fake, rate=100.0, distribution=distribution, duration_s=0.6, seed=1)
    )
    # The schedule alone decides how many are due, however slow the machine.
    assert 36 <= result.requests <= 84
    assert result.errors == {}
    assert result.response_time_s.mean >= result.service_time_s.mean


async def test_open_loop_shows_the_waiting_that_sending_late_hides(fake: FakeRootserve) -> None:
    """A server for 50 requests a second is sent 300, at most two at once."""
    fake.delay_s = 0.02
    fake.one_at_a_time = True
    result = await run_load(
        options(
            fake,
            rate=300.0,
            distribution="constant",
            duration_s=1.0,
            warmup_s=0.0,
            max_in_flight=2,
        )
    )
    assert result.succeeded > 0
    assert result.response_time_s.mean > 2 * result.service_time_s.mean
    assert result.response_time_s.max > 3 * result.service_time_s.p50
    # Most were never answered: their times are not known, and nothing is made up for them.
    assert result.response_time_s.p99 is None
    assert result.late_departures > 0.5 * result.requests
    assert result.max_lateness_s > 0.1
    # All 300 are accounted for: answered, or due and never sent.
    assert result.unfinished > 100
    assert result.requests == 300
    assert result.throughput_rows_per_s <= 60


async def test_open_loop_does_not_wait_for_answers(fake: FakeRootserve) -> None:
    fake.delay_s = 0.3
    result = await run_load(options(fake, rate=40.0, distribution="constant", warmup_s=0.0))
    # What is under way at the window's end is waited for and has its time counted.
    assert result.requests == 16
    assert result.succeeded >= 14
    assert result.response_time_s.min >= 0.3
    # Answered within the window: only what was sent in its first quarter.
    assert result.throughput_requests_per_s * 0.4 <= 8


async def test_failures_are_counted_by_code_and_the_run_goes_on(fake: FakeRootserve) -> None:
    codes = [None, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL, None]
    fake.fail = lambda number: codes[number % 4]
    result = await run_load(options(fake, concurrency=2))
    assert set(result.errors) == {"RESOURCE_EXHAUSTED", "INTERNAL"}
    assert result.succeeded > 0
    assert result.requests == result.succeeded + sum(result.errors.values())


async def test_calls_end_by_their_timeout(fake: FakeRootserve) -> None:
    fake.delay_s = 0.5
    result = await run_load(options(fake, concurrency=2, timeout_s=0.05, warmup_s=0.0))
    assert set(result.errors) == {"DEADLINE_EXCEEDED"}
    assert result.response_time_s.p50 is None
    assert result.throughput_rows_per_s == 0


async def test_an_unavailable_server_does_not_end_the_run(fake: FakeRootserve) -> None:
    fake.fail = lambda _: grpc.StatusCode.UNAVAILABLE
    result = await run_load(options(fake, concurrency=2))
    assert set(result.errors) == {"UNAVAILABLE"}
    # Each of the two takes a breath of 10 ms after every failure.
    assert result.requests <= 2 * 0.4 / 0.01 + 2


@pytest.mark.parametrize("loop", [{"concurrency": 4}, {"rate": 50.0}])
async def test_a_stop_ends_the_run_early(fake: FakeRootserve, loop: dict[str, float]) -> None:
    stop = asyncio.Event()
    here = asyncio.get_running_loop()

    def enough(number: int) -> None:
        if number == 20:
            here.call_soon_threadsafe(stop.set)

    fake.fail = enough
    result = await run_load(options(fake, duration_s=60.0, warmup_s=0.0, **loop), stop=stop)
    assert result.interrupted
    assert 0 < result.window_s < 30
    assert result.requests > 0


async def test_a_stop_cuts_off_what_hangs(fake: FakeRootserve) -> None:
    stop = asyncio.Event()
    here = asyncio.get_running_loop()

    def hang(number: int) -> None:
        if number > 0:
            fake.delay_s = 8.0
        if number == 2:
            here.call_soon_threadsafe(here.call_later, 0.2, stop.set)

    fake.fail = hang
    result = await run_load(
        options(fake, concurrency=2, duration_s=60.0, warmup_s=0.0, timeout_s=60.0), stop=stop
    )
    assert result.interrupted
    assert result.unfinished == 2


@pytest.mark.parametrize("loop", [{"concurrency": 2}, {"rate": 50.0}])
async def test_a_cancelled_run_leaves_nothing_behind(
    fake: FakeRootserve, loop: dict[str, float]
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.4):
            await run_load(options(fake, duration_s=60.0, **loop))
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_progress_is_shown_while_it_runs(fake: FakeRootserve) -> None:
    seen: list[Snapshot] = []
    await run_load(options(fake, concurrency=1, warmup_s=0.7, duration_s=0.7), watch=seen.append)
    assert [snapshot.warming_up for snapshot in seen] == sorted(
        (snapshot.warming_up for snapshot in seen), reverse=True
    )
    assert seen[0].warming_up
    assert seen[0].rows_per_s > 0
    assert seen[0].p99_s is None
    assert seen[-1].p99_s is not None


async def test_an_unknown_model_is_told_before_the_load(fake: FakeRootserve) -> None:
    asked = LoadOptions(model="resnet", server=fake.address, concurrency=1)
    with pytest.raises(ServerError, match="NOT_FOUND"):
        await run_load(asked)
    with pytest.raises(ServerError, match="NOT_FOUND"):
        await run_load(asked, np.zeros((1, 3, 32, 32), np.uint8))


async def test_a_server_without_catalogue_can_be_loaded_with_images(fake: FakeRootserve) -> None:
    fake.has_catalog = fake.has_timeline = False
    result = await run_load(options(fake, concurrency=1), np.zeros((1, 3, 32, 32), np.uint8))
    assert result.succeeded > 0
    assert result.stages_s is None


async def test_too_large_a_request_is_refused_before_the_load(fake: FakeRootserve) -> None:
    with pytest.raises(InputError, match=r"rows 30000: .*64 MiB"):
        await run_load(
            options(fake, concurrency=1, rows=30_000), np.zeros((1, 3, 32, 32), np.uint8)
        )
    assert fake.requests == []


async def test_unreachable(nobody: str) -> None:
    with pytest.raises(Unreachable):
        await run_load(LoadOptions(model="nin-orig", server=nobody, concurrency=1))


@pytest.mark.parametrize("loop", [{"concurrency": 2}, {"rate": 50.0}])
async def test_an_error_of_the_clients_own_is_not_lost(
    fake: FakeRootserve, loop: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("a slip of ours")

    monkeypatch.setattr("rootserve.client.load.caller.read_timeline", broken)
    with pytest.raises(ZeroDivisionError, match="a slip of ours"):
        await run_load(options(fake, **loop))
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_processes_leave_the_callers_signals_as_they_were(fake: FakeRootserve) -> None:
    """A program that has blocked SIGTERM, to wait for it by itself, must not be ended by it."""
    asked = options(fake, concurrency=2, processes=2)
    plan = plan_for(asked)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        agent = RemoteAgent(Task(asked, plan, {"nin-orig": np.zeros((1, 3, 32, 32), np.uint8)}))
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        asyncio.run(agent.close())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert signal.SIGTERM in blocked
    assert signal.SIGINT not in blocked


async def test_a_process_that_cannot_be_started_leaves_none_behind(
    fake: FakeRootserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    class Agent(LocalAgent):
        def __init__(self, task: Task) -> None:
            if task.part == 1:
                raise OSError("no more processes")
            super().__init__(task)

        async def close(self) -> None:
            closed.append(self)
            await super().close()

    monkeypatch.setattr("rootserve.client.load.runner.RemoteAgent", Agent)
    with pytest.raises(OSError, match="no more processes"):
        await run_load(options(fake, concurrency=2, processes=2))
    assert len(closed) == 1
