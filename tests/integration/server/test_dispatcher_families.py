"""Families in the dispatcher, with a pool that computes nothing: which variant answers, who is refused."""

import asyncio
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from rootmodels.weights_info import WeightsInfo
from rootserve.server.core.scheduler import Batch, Limits, Scheduler
from rootserve.server.dispatcher import Dispatcher
from rootserve.server.models import ModelCard, Models
from rootserve.server.observers.events import Observer
from rootserve.server.pending import Answer, Pending, Report
from rootserve.server.refusals import Reason, RefusalError
from tests.support.held import hold
from tests.support.pending import pending

AUTO = "nin-auto"
ACCURACIES = {"nin-orig": 0.9026, "nin-root-16": 0.8983}
ROW_BYTES = 40
DONE = Report(1, 2, engine="fake", precision="fp32")


class FakePool:
    """Notes what it is told to run; the test says when it is done."""

    def __init__(self) -> None:
        self.handles = {"w": self}
        self.given: list[Batch] = []

    def run(self, batch: Batch, requests: Sequence[Pending]) -> None:
        assert [one.request.id for one in requests] == [one.id for one in batch.requests]
        self.given.append(batch)

    def take_output(self, batch: Batch) -> bytes:
        return np.repeat(np.arange(batch.rows, dtype=np.float32), ROW_BYTES // 4).tobytes()


class Room:
    """A dispatcher and all it knows."""

    def __init__(self) -> None:
        self.models = Models([self.card(*item) for item in ACCURACIES.items()])
        self.models.select(ACCURACIES)
        self.pool = FakePool()
        scheduler = Scheduler(Limits(max_batch_rows=4, max_queue_rows=8, lead_s=None, explain=True))
        self.dispatcher = Dispatcher(scheduler, self.pool, self.models, Observer())  # type: ignore[arg-type]
        for name in ACCURACIES:
            self.dispatcher.model_measured("w", name, ((1, 0.001), (4, 0.002)), "")
        self.worker_ready()

    @staticmethod
    def card(name: str, accuracy: float) -> ModelCard:
        variant = get_variant(name)
        info = WeightsInfo(name, accuracy, 10_000, 1, 0, "", {})
        return ModelCard(variant, network_cost(variant), None, info)

    def worker_ready(self, *names: str) -> None:
        held = names or tuple(ACCURACIES)
        hold(self.models, "w", *held)
        self.dispatcher.worker_ready("w", frozenset(held))
        self.dispatcher.models_changed()

    def fail(self, name: str) -> None:
        """The worker cannot compute this variant any more."""
        state = self.models.workers["w"]
        state.held.pop(name, None)
        state.failed[name] = self.models[name].card, "no memory"
        self.dispatcher.worker_ready("w", frozenset(state.held))
        self.dispatcher.models_changed()

    def ask(self, patience_s: float = math.inf, **wanted: object) -> asyncio.Task[Answer]:
        asked = pending(model=AUTO, patience_s=patience_s)
        asked.request = asked.request._replace(**wanted)  # type: ignore[arg-type]
        self.dispatcher.submit(asked)
        return asyncio.ensure_future(self.dispatcher.answer(asked))

    def done(self) -> None:
        """The worker is through with the batch that it was given last."""
        self.dispatcher.batch_done("w", self.pool.given[-1].id, DONE)


@pytest.fixture
async def room() -> Iterator[Room]:
    made = Room()
    yield made
    made.dispatcher.close()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_answer_tells_variant_accuracy_and_prediction(room: Room) -> None:
    call = room.ask(allowed=frozenset({"nin-root-16"}))
    await settle()
    (batch,) = room.pool.given
    assert (batch.model, batch.requests[0].model) == ("nin-root-16", AUTO)
    room.done()
    timeline = (await call).timeline
    assert (timeline.variant, timeline.accuracy) == ("nin-root-16", 0.8983)
    assert batch.predicted_s is not None
    assert timeline.predicted_ns == round(batch.predicted_s * 1e9)


async def test_what_a_floor_allows_goes_on_when_another_variant_fails(room: Room) -> None:
    busy = room.ask()
    await settle()
    floors = room.ask(floor=0.9), room.ask(floor=0.89)
    pinned = room.ask(allowed=frozenset({"nin-orig"}))
    await settle()
    room.fail("nin-orig")
    await settle()
    for call in (floors[0], pinned):
        with pytest.raises(
            RefusalError, match="no variant of nin-auto that this request"
        ) as caught:
            await call
        assert caught.value.reason is Reason.MODEL_NOT_READY
    room.done()
    await busy
    await settle()
    room.done()
    assert (await floors[1]).timeline.variant == "nin-root-16"


async def test_what_a_dead_worker_had_and_nothing_may_compute_is_refused(room: Room) -> None:
    call = room.ask(allowed=frozenset({"nin-orig"}))
    await settle()
    assert len(room.pool.given) == 1
    room.models["nin-orig"].served = False
    room.dispatcher.models_changed()
    await settle()
    assert not call.done()  # a worker has it
    room.dispatcher.worker_lost("w")
    room.models.workers["w"].reset()
    room.dispatcher.models_changed()
    with pytest.raises(RefusalError) as caught:
        await call
    assert caught.value.reason is Reason.MODEL_NOT_READY


async def test_what_a_dead_worker_had_is_computed_by_what_is_left(room: Room) -> None:
    calls = [room.ask() for _ in range(3)]
    await settle()
    room.dispatcher.worker_lost("w")
    room.models.workers["w"].reset()
    room.worker_ready("nin-root-16")
    for _ in range(3):  # one by one: one of them may have killed the worker
        await settle()
        room.done()
    answers = await asyncio.gather(*calls)
    assert {answer.timeline.variant for answer in answers} == {"nin-root-16"}


async def test_the_last_variant_takes_what_waits_with_it(room: Room) -> None:
    busy, waits = room.ask(), None
    await settle()
    waits = room.ask()
    for name in ACCURACIES:
        room.models[name].served = False
    room.dispatcher.models_changed()
    with pytest.raises(RefusalError, match="no variant of nin-auto"):
        await waits
    room.done()
    await busy


async def test_draining_a_variant_waits_for_what_needs_it_alone(room: Room) -> None:
    busy = room.ask()
    await settle()
    pinned, free = room.ask(allowed=frozenset({"nin-orig"})), room.ask(floor=0.89)
    room.models["nin-orig"].served, room.models["nin-orig"].retiring = False, True
    drained = asyncio.ensure_future(room.dispatcher.drain_model("nin-orig"))
    for _ in range(3):
        await settle()
        if pinned.done():
            break
        assert not drained.done()
        room.done()
    await pinned
    await drained
    free.cancel()
    await asyncio.gather(busy, free, return_exceptions=True)


async def test_a_deadline_that_cannot_be_kept_is_refused_as_data(room: Room) -> None:
    with pytest.raises(RefusalError) as caught:
        room.ask(patience_s=0.0005, floor=0.9)
    error = caught.value
    assert error.reason is Reason.DEADLINE_INFEASIBLE
    assert error.promise is not None
    assert error.promise.model == AUTO
    assert error.promise.earliest_s >= 0.001
    assert error.retry_after_s is not None
    assert "nin-auto cannot answer within 0.5 ms: at the earliest" in error.message


async def test_what_a_request_found_is_kept_to_be_explained(room: Room) -> None:
    calls = [room.ask() for _ in range(2)]
    await settle()
    asked = pending(model=AUTO)
    room.dispatcher.submit(asked)
    assert asked.story is not None
    assert (asked.story.waiting, asked.story.computing) == (0, 2)
    room.dispatcher.withdraw(asked)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_while_all_workers_are_replaced_deadlines_wait_and_expire(room: Room) -> None:
    room.dispatcher.worker_lost("w")
    room.models.workers["w"].reset()
    room.dispatcher.models_changed()
    short, long = room.ask(patience_s=0.05), room.ask(patience_s=60.0)
    with pytest.raises(RefusalError) as caught:
        await short
    assert caught.value.reason is Reason.DEADLINE_EXPIRED
    room.worker_ready()
    await settle()
    room.done()
    assert (await long).timeline.variant in ACCURACIES
