"""The dispatcher with a pool that computes nothing: whatever happens, each request ends once."""

import asyncio
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from rootserve.server.core.scheduler import Batch, Limits, Scheduler
from rootserve.server.dispatcher import Dispatcher
from rootserve.server.models import ModelCard, Models
from rootserve.server.observers.events import Observer, Refusal
from rootserve.server.pending import Answer, Pending, Report
from rootserve.server.refusals import Reason, RefusalError
from tests.support.held import hold
from tests.support.pending import pending

NAME = "nin-root-16"
ROW_BYTES = 40


class FakePool:
    """Notes what it is told to run; the test says when it is done."""

    def __init__(self) -> None:
        self.handles = {"w": self, "v": self}
        self.given: list[tuple[str, int, Sequence[Pending]]] = []
        self.fail_next_run = False

    def run(self, batch: Batch, requests: Sequence[Pending]) -> None:
        if self.fail_next_run:
            self.fail_next_run = False
            raise ValueError("cannot be told")
        self.given.append((batch.worker, batch.id, requests))

    def take_output(self, batch: Batch) -> bytes:
        return np.repeat(np.arange(batch.rows, dtype=np.float32), ROW_BYTES // 4).tobytes()


class FakeObserver(Observer):
    def __init__(self) -> None:
        self.rows_computed = 0

    def batch_ended(self, batch: Batch, report: Report, requests: Sequence[Pending | None]) -> None:
        assert len(requests) == len(batch.requests)
        if report.began_ns:
            self.rows_computed += sum(one.request.rows for one in requests if one is not None)

    def refused(self, refusal: Refusal) -> None:
        raise AssertionError("the wire tells of refusals")


class Room:
    """A dispatcher and all it knows."""

    def __init__(self, lead_s: float | None = 0.002) -> None:
        variant = get_variant(NAME)
        self.models = Models([ModelCard(variant, network_cost(variant), None, None)])
        self.models.select([NAME])
        self.pool = FakePool()
        self.observer = FakeObserver()
        scheduler = Scheduler(Limits(max_batch_rows=4, max_queue_rows=8, lead_s=lead_s))
        self.dispatcher = Dispatcher(scheduler, self.pool, self.models, self.observer)  # type: ignore[arg-type]

    def worker_ready(self, name: str = "w") -> None:
        hold(self.models, name, NAME)
        self.dispatcher.worker_ready(name, frozenset([NAME]))

    def ask(self, rows: int = 1, patience_s: float = math.inf) -> asyncio.Task[Answer]:
        asked = pending(rows, patience_s=patience_s)
        self.dispatcher.submit(asked)
        return asyncio.ensure_future(self.dispatcher.answer(asked))


@pytest.fixture(params=[0.002, None], ids=["lead", "no lead"])
async def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    made = Room(request.param)
    yield made
    made.dispatcher.close()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_rows_of_a_shared_batch_go_to_who_sent_them(room: Room) -> None:
    room.worker_ready()
    first, second = room.ask(1), room.ask(3)
    await settle()
    ((worker, batch, given),) = room.pool.given
    assert [one.request.rows for one in given] == [1, 3]
    room.dispatcher.batch_done(worker, batch, Report(10, 30))
    assert np.frombuffer((await first).logits, np.float32).tolist() == [0.0] * 10
    assert np.frombuffer((await second).logits, np.float32)[::10].tolist() == [1.0, 2.0, 3.0]
    assert (await first).timeline.compute_ns == 20
    assert room.observer.rows_computed == 4


async def test_requests_before_a_worker_is_ready_are_refused(room: Room) -> None:
    with pytest.raises(RefusalError) as caught:
        await room.ask()
    assert caught.value.reason is Reason.MODEL_NOT_READY


async def test_what_the_worker_found_expired_is_refused_and_the_rest_answered(room: Room) -> None:
    room.worker_ready()
    late, kept = room.ask(1), room.ask(2)
    await settle()
    room.dispatcher.batch_done("w", room.pool.given[0][1], Report(1, 2, expired=(0,)))
    with pytest.raises(RefusalError) as caught:
        await late
    assert caught.value.reason is Reason.DEADLINE_EXPIRED
    assert np.frombuffer((await kept).logits, np.float32)[::10].tolist() == [1.0, 2.0]
    assert room.dispatcher._scheduler.durations.predict(NAME, 3) is None


@pytest.mark.parametrize("room", [None], indirect=True)
async def test_a_request_behind_a_busy_worker_is_refused_when_its_deadline_passes(
    room: Room,
) -> None:
    room.worker_ready()
    busy = room.ask(4)
    await settle()
    later, sooner = room.ask(1, patience_s=0.1), room.ask(1, patience_s=0.05)
    for late in (sooner, later):
        with pytest.raises(RefusalError) as caught:
            await asyncio.wait_for(late, 5)
        assert caught.value.reason is Reason.DEADLINE_EXPIRED
    ((_, batch, _),) = room.pool.given
    room.dispatcher.batch_done("w", batch, Report(1, 2))
    assert len((await busy).logits) == 4 * ROW_BYTES


async def test_what_comes_while_the_worker_is_busy_goes_to_it_when_it_is_done(room: Room) -> None:
    room.worker_ready()
    first = room.ask(4)
    await settle()
    second, third = room.ask(1), room.ask(2)
    await settle()
    room.dispatcher.batch_done("w", room.pool.given[0][1], Report(1, 2))
    await first
    _, batch, given = room.pool.given[1]
    assert [one.request.rows for one in given] == [1, 2]
    room.dispatcher.batch_done("w", batch, Report(3, 4))
    await second
    await third


async def test_a_request_with_a_bad_picture_is_refused_alone(room: Room) -> None:
    room.worker_ready()
    kept, bad, kept_too = room.ask(1), room.ask(1), room.ask(2)
    await settle()
    report = Report(1, 2, refused=((1, "row 0: the picture is damaged"),))
    room.dispatcher.batch_done("w", room.pool.given[0][1], report)
    with pytest.raises(RefusalError, match="tensor encoded: row 0: the picture is") as caught:
        await bad
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert np.frombuffer((await kept).logits, np.float32)[::10].tolist() == [0.0]
    assert np.frombuffer((await kept_too).logits, np.float32)[::10].tolist() == [2.0, 3.0]
    assert room.dispatcher._scheduler.durations.predict(NAME, 4) is None


async def test_decoding_does_not_count_as_time_the_model_takes(room: Room) -> None:
    room.worker_ready()
    call = room.ask(1)
    await settle()
    report = Report(0, 3_000_000_000, decode_ns=2_000_000_000)
    room.dispatcher.batch_done("w", room.pool.given[0][1], report)
    timeline = (await call).timeline
    assert (timeline.compute_ns, timeline.decode_ns) == (3_000_000_000, 2_000_000_000)
    assert room.dispatcher._scheduler.durations.predict(NAME, 1) == pytest.approx(1.0)


async def test_a_worker_that_decodes_does_not_hang(room: Room) -> None:
    room.worker_ready()
    call = room.ask(1)
    await settle()
    worker = room.dispatcher._scheduler._workers["w"]
    (under_way,) = worker.running.values()
    began_s = under_way.heard_s
    room.dispatcher.batch_decoding("w")
    assert under_way.heard_s > began_s
    room.dispatcher.batch_done("w", room.pool.given[0][1], Report(1, 2))
    await call


async def test_what_is_held_of_requests_is_bounded(room: Room) -> None:
    room.dispatcher._max_bytes = 3 * 3072
    room.worker_ready()
    calls = [room.ask(2), room.ask(1)]
    await settle()
    with pytest.raises(
        RefusalError, match="9216 bytes are being answered, 3072 more came"
    ) as caught:
        await room.ask(1)
    assert caught.value.reason is Reason.QUEUE_FULL
    assert caught.value.retry_after_s is not None
    room.dispatcher.batch_done("w", room.pool.given[0][1], Report(1, 2))
    await calls[0]
    again = room.ask(1)
    await settle()
    assert not again.done()
    for call in (calls[1], again):
        call.cancel()
    await asyncio.gather(calls[1], again, return_exceptions=True)
    assert room.dispatcher._bytes == 0


async def test_a_failed_batch_refuses_its_requests(room: Room) -> None:
    room.worker_ready()
    calls = [room.ask(), room.ask()]
    await settle()
    room.dispatcher.batch_failed("w", room.pool.given[0][1], "boom", Report(0, 0))
    for call in calls:
        with pytest.raises(RefusalError, match="failed on this batch: boom") as caught:
            await call
        assert caught.value.reason is Reason.MODEL_FAILURE


async def test_what_waits_for_a_model_that_fails_is_refused(room: Room) -> None:
    room.worker_ready()
    call = room.ask()
    await settle()
    room.dispatcher.worker_lost("w")
    state = room.models.workers["w"]
    state.reset()
    state.failed[NAME] = room.models[NAME].card, "weights are gone"
    room.dispatcher.model_failed(NAME)
    with pytest.raises(RefusalError, match="w: weights are gone") as caught:
        await call
    assert caught.value.reason is Reason.MODEL_NOT_READY


async def test_answers_that_are_there_are_given_even_if_the_next_batch_cannot_be(
    room: Room,
) -> None:
    room.worker_ready()
    first = room.ask(4)
    await settle()
    room.dispatcher._scheduler.durations.learn(NAME, 1, 60.0)
    room.dispatcher._scheduler.durations.learn(NAME, 4, 60.0)
    second = room.ask(1)
    await settle()
    room.pool.fail_next_run = True
    with pytest.raises(ValueError, match="cannot be told"):
        room.dispatcher.batch_done("w", room.pool.given[0][1], Report(1, 2))
    assert len((await first).logits) == 4 * ROW_BYTES
    # The pool kills a worker it could not tell; another one takes what it had.
    room.dispatcher.worker_lost("w")
    room.worker_ready("v")
    await settle()
    worker, batch, _ = room.pool.given[-1]
    room.dispatcher.batch_done(worker, batch, Report(1, 2))
    assert len((await second).logits) == ROW_BYTES


async def test_a_cancelled_caller_costs_the_others_nothing(room: Room) -> None:
    room.worker_ready()
    calls = [room.ask() for _ in range(3)]
    await settle()
    calls[1].cancel()
    await settle()
    room.dispatcher.batch_done("w", room.pool.given[0][1], Report(1, 2))
    assert len((await calls[0]).logits) == len((await calls[2]).logits) == ROW_BYTES
    assert calls[1].cancelled()
    assert room.observer.rows_computed == 2


async def test_a_full_queue_refuses_and_says_how_full(room: Room) -> None:
    room.worker_ready()
    calls = [room.ask(4) for _ in range(2)]
    await settle()
    calls += [room.ask(4) for _ in range(2)]
    await settle()
    with pytest.raises(
        RefusalError, match="8 rows wait, 1 more came, the limit is 8 for each priority"
    ) as caught:
        await room.ask(1)
    assert caught.value.reason is Reason.QUEUE_FULL
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_drain_waits_for_what_was_admitted_and_refuses_the_rest(room: Room) -> None:
    room.worker_ready()
    call = room.ask()
    await settle()
    drained = asyncio.ensure_future(room.dispatcher.drain())
    await settle()
    assert not drained.done()
    with pytest.raises(RefusalError) as caught:
        await room.ask()
    assert caught.value.reason is Reason.DRAINING
    room.dispatcher.batch_done("w", room.pool.given[0][1], Report(1, 2))
    await call
    await drained
