"""The service's side of an analysis process, with a real process that derives from sums."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from rootmodels.analysis.derived import Kind
from rootmodels.analysis.derived import derive as derive_here
from rootmodels.analysis.layers import Stage
from rootmodels.analysis.sums import LayerShape, Sums, make_plan
from rootserve.server.analysis import derived, helper, messages
from rootserve.server.analysis.helper import Helper, HelperJob, HelperLostError
from rootserve.server.analysis.jobs import Analyses, AnalysisLimits, Chunk, PixelChunk
from rootserve.server.models import ModelCard
from rootserve.server.observers.events import Observers
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.repository import Repository
from tests.support.moments import moments_of

PLAN = make_plan([LayerShape("a", 6, 4, 4), LayerShape("b", 4, 2, 2, groups=2)])


def some_sums(seed: int = 0) -> Sums:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(80, 6)), rng.normal(size=(80, 4))
    layers = {"a": moments_of(a), "b": moments_of(b[:20])}
    return Sums(PLAN, 5, layers, {("a", "b"): moments_of(a, b)})


def begin(job: int = 1) -> messages.Begin:
    return messages.Begin(
        job=job,
        model="",
        weights=None,
        stage="",
        layers=tuple((s.name, s.channels, s.height, s.width, s.groups) for s in PLAN.layers),
        pairs=PLAN.pairs,
        input_bytes=Sums.byte_size(PLAN),
        output_bytes=derived.largest_bytes(PLAN, set(Kind)),
    )


ALL = tuple(kind.value for kind in Kind)


@pytest.fixture
async def process() -> AsyncIterator[Helper]:
    process = Helper("cpu", 1)
    yield process
    await process.close()
    assert process.pid == 0


async def test_it_derives_what_is_derived_here(process: Helper) -> None:
    sums = some_sums()
    with HelperJob(process, begin()) as job:
        reply, output = await job.ask(messages.Derive(1, ALL, 1e-6), sums.to_bytes())
    assert isinstance(reply, messages.Derived)
    came = derived.from_bytes(output[: reply.length])
    expected = derive_here(Sums.from_bytes(PLAN, sums.to_bytes()), set(Kind))
    assert came.layers == expected.layers
    assert len(came.matrices) == len(expected.matrices) == 3 * 2 + 3
    by_key = {(matrix.kind, matrix.layers): matrix.values for matrix in expected.matrices}
    for matrix in came.matrices:
        np.testing.assert_allclose(matrix.values, by_key[matrix.kind, matrix.layers], atol=1e-12)


async def test_a_bad_request_is_refused_and_the_process_lives(process: Helper) -> None:
    with HelperJob(process, begin()) as job:
        nothing = Sums.zero(PLAN).to_bytes()
        reply, _ = await job.ask(messages.Derive(1, (), 1e-6), nothing)
        assert isinstance(reply, messages.Failed)
        assert reply.fault == "request"
        assert "no images" in reply.error
        reply, _ = await job.ask(messages.DatasetImages(1, "/nowhere", 0, 1, 32, 32))
        assert isinstance(reply, messages.Failed)
        assert "/nowhere: no such file or folder" in reply.error
        pid = process.pid
        reply, _ = await job.ask(messages.Derive(1, (), 1e-6), some_sums().to_bytes())
        assert isinstance(reply, messages.Derived)
        assert process.pid == pid


async def test_a_job_survives_the_death_of_the_process(process: Helper) -> None:
    request = messages.Derive(1, ALL, 1e-6)
    content = some_sums().to_bytes()
    with HelperJob(process, begin()) as job:
        _, before = await job.ask(request, content)
        os.kill(process.pid, signal.SIGSTOP)
        asking = asyncio.create_task(job.ask(request, content))
        await asyncio.sleep(0)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(HelperLostError, match="ended by itself"):
            await asking
        _, after = await job.ask(request, content)
    assert after == before


async def test_two_jobs_take_turns(process: Helper) -> None:
    with HelperJob(process, begin(1)) as first, HelperJob(process, begin(2)) as second:
        asked = [
            job.ask(messages.Derive(number, ALL, 1e-6), some_sums(seed).to_bytes())
            for number, job in ((1, first), (2, second))
            for seed in range(3)
        ]
        outputs = [output for _, output in await asyncio.gather(*asked)]
    assert outputs[:3] == outputs[3:]
    assert len(set(outputs)) == 3


async def test_what_is_cancelled_and_does_not_end_is_killed(
    process: Helper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "_PATIENCE_S", 0.05)
    content = some_sums().to_bytes()
    with HelperJob(process, begin()) as job:
        await job.ask(messages.Derive(1, (), 1e-6), content)
        stopped = process.pid
        os.kill(stopped, signal.SIGSTOP)
        asking = asyncio.create_task(job.ask(messages.Derive(1, (), 1e-6), content))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await job.ask(messages.Derive(1, (), 1e-6), content)
        assert process.pid != stopped


async def test_a_second_cancellation_leaves_no_reply_for_the_next_job(process: Helper) -> None:
    mine, other = some_sums(1).to_bytes(), some_sums(2).to_bytes()
    with HelperJob(process, begin()) as job, HelperJob(process, begin(2)) as next_job:
        request, next_request = messages.Derive(1, ALL, 1e-6), messages.Derive(2, ALL, 1e-6)
        _, expected = await next_job.ask(next_request, other)
        stopped = process.pid
        os.kill(stopped, signal.SIGSTOP)
        asking = asyncio.create_task(job.ask(request, mine))
        await asyncio.sleep(0)
        for _ in range(2):
            asking.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await asking
        with contextlib.suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)
        reply, output = await next_job.ask(next_request, other)
        assert reply.job == 2
        assert output == expected
        assert process.pid != stopped


async def test_sums_that_are_sent_take_a_place_and_share_what_may_be_held(process: Helper) -> None:
    analyses = Analyses([process], AnalysisLimits(2, 10, 1000), Observers([]))
    with analyses.place() as first, analyses.place() as second:
        first.hold(600)
        first.hold(500)
        second.hold(400)
        with pytest.raises(
            RefusalError, match="other calls hold sums of 600 bytes, 401 more"
        ) as full:
            second.hold(401)
        assert full.value.reason is Reason.ANALYSES_FULL
        with pytest.raises(RefusalError, match="2 analyses are running"):
            analyses.place().__enter__()
    second_again = analyses.place()
    with second_again as place:
        place.hold(1000)
    no_analyses = Analyses([process], AnalysisLimits(0, 10, 1000), Observers([]))
    with pytest.raises(RefusalError) as none:
        no_analyses.place().__enter__()
    assert none.value.reason is Reason.ANALYSES_FULL


async def test_it_stands_still_while_inference_runs(process: Helper) -> None:
    analyses = Analyses([process], AnalysisLimits(1, 10, 10**6), Observers([]))
    content = some_sums().to_bytes()
    with HelperJob(process, begin()) as job:
        await job.ask(messages.Derive(1, (), 1e-6), content)
        analyses.set_busy("cuda:0", True)
        await job.ask(messages.Derive(1, (), 1e-6), content)
        analyses.set_busy("cpu", True)
        asking = asyncio.create_task(job.ask(messages.Derive(1, (), 1e-6), content))
        done, _ = await asyncio.wait({asking}, timeout=0.2)
        assert not done
        analyses.set_busy("cpu", False)
        reply, _ = await asking
        assert isinstance(reply, messages.Derived)


async def test_a_process_that_is_started_during_inference_waits(process: Helper) -> None:
    process.pause(paused=True)
    with HelperJob(process, begin()) as job:
        request = messages.Derive(1, (), 1e-6)
        asking = asyncio.create_task(job.ask(request, some_sums().to_bytes()))
        done, _ = await asyncio.wait({asking}, timeout=1.0)
        assert not done
        process.pause(paused=False)
        await asking


async def test_it_ends_when_there_is_nothing_to_do(
    process: Helper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "_IDLE_S", 0.01)
    with HelperJob(process, begin()) as job:
        await job.ask(messages.Derive(1, (), 1e-6), some_sums().to_bytes())
        pid = process.pid
        assert pid
    for _ in range(1000):
        if not process.pid:
            break
        await asyncio.sleep(0.01)
    await process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


class FlakyHelper(Helper):
    """Loses every request."""

    def ensure_started(self) -> None:
        raise HelperLostError("it never starts")


def card() -> ModelCard:
    model = Repository([Path("nowhere")]).find_models().get("nin-orig")
    assert model is not None
    return model.card


async def no_more_than(chunks: int) -> AsyncIterator[Chunk]:
    for _ in range(chunks):
        yield PixelChunk(1, 32, 32, bytes(3072))


async def test_a_chunk_that_kills_every_process_is_given_up() -> None:
    analyses = Analyses([FlakyHelper("cpu", 1)], AnalysisLimits(1, 10, 10**6), Observers([]))
    with analyses.open(card(), PLAN, Stage.AFTER_RELU) as analysis:
        with pytest.raises(RefusalError, match="3 analysis processes died") as caught:
            await analysis.run(no_more_than(1))
        assert caught.value.reason is Reason.WORKER_LOST
        with pytest.raises(RefusalError) as full:
            analyses.open(card(), PLAN, Stage.AFTER_RELU).__enter__()
        assert full.value.reason is Reason.ANALYSES_FULL
        assert full.value.retry_after_s
    await analyses.close()
    with pytest.raises(RefusalError) as closed:
        analyses.open(card(), PLAN, Stage.AFTER_RELU).__enter__()
    assert closed.value.reason is Reason.DRAINING


async def test_a_stop_ends_an_analysis_that_waits_for_its_caller() -> None:
    async def never() -> AsyncIterator[Chunk]:
        await asyncio.Event().wait()
        yield PixelChunk(1, 32, 32, bytes(3072))

    analyses = Analyses([FlakyHelper("cpu", 1)], AnalysisLimits(1, 10, 10**6), Observers([]))
    with analyses.open(card(), PLAN, Stage.AFTER_RELU) as analysis:
        running = asyncio.create_task(analysis.run(never()))
        await asyncio.sleep(0)
        await analyses.close()
        with pytest.raises(RefusalError) as caught:
            await running
    assert caught.value.reason is Reason.DRAINING


async def test_a_process_that_cannot_be_waited_for_at_once_is_waited_for_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [RuntimeError("can't start new thread")]
    real = asyncio.to_thread

    async def to_thread(work: Callable[[], object]) -> object:
        if failures:
            raise failures.pop()
        return await real(work)

    process = Helper("cpu", 1)
    process.ensure_started()
    pid = process.pid
    monkeypatch.setattr(helper.asyncio, "to_thread", to_thread)
    await process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert f"waiting for analysis process {pid} failed and goes on" in caplog.text
