"""The pool with workers that are told things and do nothing: who has what, whatever the order of events."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest

from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from rootserve.server.core.arrangement import Streams
from rootserve.server.core.batch_size import Latency
from rootserve.server.core.scheduler import Batch
from rootserve.server.models import ModelCard, Models
from rootserve.server.pending import Report
from rootserve.server.workers import messages, pool
from rootserve.server.workers.handle import WorkerHandle, WorkerSpec
from rootserve.server.workers.pool import LoadError, WorkerPool

NAME = "nin-root-16"


def card(sha256: str = "old") -> ModelCard:
    variant = get_variant(NAME)
    return ModelCard(variant, network_cost(variant), Path(sha256), None, sha256)


class FakeHandle:
    """Keeps what a worker would; the test says when it has done what it was told."""

    fail_starts: ClassVar[list[Exception]] = []
    """Raised by the next starts, one each."""

    def __init__(
        self, spec: WorkerSpec, on_message: object, on_end: object, on_run: object
    ) -> None:
        self.spec = spec
        self.pid = 1
        self.is_busy = False
        self.on_message, self.on_end, self.on_run = on_message, on_end, on_run
        self.has: dict[str, str] = {}
        self.behind: dict[str, str] = {}
        self.loading: list[tuple[ModelCard, bool]] = []
        self.killed = False

    def start(self) -> None:
        if self.fail_starts:
            raise self.fail_starts.pop(0)

    def load(self, card: ModelCard, *, behind: bool = False) -> None:
        self.loading.append((card, behind))

    def swap(self, model: str) -> None:
        self.has[model] = self.behind.pop(model)

    def discard(self, model: str, *, running: bool = False) -> None:
        self.behind.pop(model, None)
        if running:
            self.has.pop(model, None)

    def run(self, batch: Batch) -> None:
        self.on_run(self, batch)  # type: ignore[operator]
        assert batch.model in self.has

    def kill(self) -> None:
        self.killed = True

    async def wait(self) -> int:
        return -9

    async def stop(self) -> None:
        pass

    # What the worker says.

    def say(self, message: messages.Message) -> None:
        self.on_message(self, message)  # type: ignore[operator]

    def started(self) -> None:
        self.say(messages.Started("a cpu", {}))

    def loaded(self, engine: str = "fake") -> None:
        card, behind = self.loading.pop(0)
        (self.behind if behind else self.has)[card.name] = card.weights_sha256
        self.say(messages.Loaded(card.name, engine, "fp32", 0.1, ((1, 0.001),)))

    def dies(self) -> None:
        self.on_end(self)  # type: ignore[operator]


@dataclass
class Events:
    """Notes what it is told."""

    models: dict[str, frozenset[str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def model_measured(
        self, worker: str, model: str, latency: Latency, device_name: str, streams: Streams
    ) -> None:
        pass

    def worker_ready(
        self, worker: str, models: frozenset[str], device_name: str, lanes: int
    ) -> None:
        self.models[worker] = models

    def batch_done(self, worker: str, batch: int, report: Report) -> None:
        self.reports.append(report)

    def batch_failed(self, worker: str, batch: int, error: str, report: Report) -> None:
        self.reports.append(report)

    def worker_lost(self, worker: str) -> None:
        self.models.pop(worker, None)

    def model_failed(self, model: str) -> None:
        self.failed.append(model)


class Room:
    """A pool of two workers, and what it tells."""

    def __init__(self) -> None:
        self.models = Models([card()])
        self.models.select([NAME])
        spec = WorkerSpec("a", "cpu", "fake", "auto", 1, 4, 3072, 10, 2, 1000, 1000)
        self.events = Events()
        self.pool = WorkerPool([spec, replace(spec, name="b")], self.models, 60.0)
        self.pool.events = self.events  # type: ignore[assignment]
        self.pool.on_models_changed = lambda: None
        self.pool.start()

    def handle(self, worker: str) -> FakeHandle:
        handle = self.pool.workers[worker].handle
        assert isinstance(handle, FakeHandle)
        return handle

    def get_ready(self, *workers: str) -> None:
        for worker in workers:
            self.handle(worker).started()
            self.handle(worker).loaded()

    def weights(self) -> dict[str, str]:
        """What each worker that takes batches would compute with."""
        return {worker: self.handle(worker).has[NAME] for worker in self.events.models}

    async def replaced(self, worker: str, before: WorkerHandle | FakeHandle) -> None:
        while self.pool.workers[worker].handle in (None, before):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.fixture
async def room(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    monkeypatch.setattr(pool, "WorkerHandle", FakeHandle)
    monkeypatch.setattr(pool, "_FIRST_BACKOFF_S", 0.001)
    monkeypatch.setattr(FakeHandle, "fail_starts", [])
    made = Room()
    for state in made.pool.workers.values():
        state.backoff_s = 0.001
    yield made
    await made.pool.stop()


async def test_a_worker_that_starts_during_a_load_has_the_new_weights_when_it_is_ready(
    room: Room,
) -> None:
    room.get_ready("a")
    room.handle("b").started()  # and is told to load the old ones
    loading = asyncio.ensure_future(room.pool.load_behind(card("new")))
    await asyncio.sleep(0)
    room.handle("a").loaded()
    await loading
    assert room.weights() == {"a": "new"}
    room.handle("b").loaded()
    assert room.weights() == {"a": "new"}, "not ready with the old ones"
    room.handle("b").loaded()
    assert room.weights() == {"a": "new", "b": "new"}


async def test_a_worker_that_gets_ready_while_another_loads_loads_as_well_before_any_swaps(
    room: Room,
) -> None:
    room.get_ready("a")
    loading = asyncio.ensure_future(room.pool.load_behind(card("new")))
    await asyncio.sleep(0)
    room.get_ready("b")
    room.handle("a").loaded()
    await asyncio.sleep(0.01)
    assert not loading.done()
    assert room.weights() == {"a": "old", "b": "old"}
    room.handle("b").loaded()
    await loading
    assert room.weights() == {"a": "new", "b": "new"}


async def test_a_load_of_which_every_worker_died_is_refused(room: Room) -> None:
    room.get_ready("a", "b")
    loading = asyncio.ensure_future(room.pool.load_behind(card("new")))
    await asyncio.sleep(0)
    first = room.handle("a")
    first.loaded()
    first.dies()
    await room.replaced("a", first)
    room.handle("b").dies()
    with pytest.raises(LoadError, match="a worker died while loading"):
        await loading
    room.get_ready("a")
    assert room.weights() == {"a": "old"}


async def test_what_retires_is_loaded_by_a_replacement_until_it_is_unloaded(room: Room) -> None:
    room.get_ready("a", "b")
    model = room.models.get(NAME)
    assert model is not None
    model.served, model.retiring = False, True
    before = room.handle("a")
    before.dies()
    await room.replaced("a", before)
    room.get_ready("a")
    assert room.events.models["a"] == {NAME}
    model.retiring = False
    room.pool.reconcile()
    assert room.events.models == {"a": frozenset(), "b": frozenset()}
    assert not room.handle("a").has


async def test_what_retires_and_cannot_be_loaded_again_is_told_as_failed(room: Room) -> None:
    room.get_ready("a")
    model = room.models.get(NAME)
    assert model is not None
    model.served, model.retiring = False, True
    before = room.handle("a")
    before.dies()
    await room.replaced("a", before)
    room.handle("a").started()
    room.handle("a").say(messages.LoadFailed(NAME, "the file is gone"))
    assert room.events.failed == [NAME]


async def test_a_model_that_was_unloaded_while_a_worker_loaded_it_is_forgotten(room: Room) -> None:
    room.get_ready("a")
    room.handle("b").started()
    model = room.models.get(NAME)
    assert model is not None
    model.served = False
    room.pool.reconcile()
    room.handle("b").loaded()
    assert room.events.models["b"] == frozenset()
    assert not room.handle("b").has


async def test_a_batch_is_told_with_the_engine_that_computed_it(room: Room) -> None:
    for worker, engine in (("a", "openvino"), ("b", "torch")):
        room.handle(worker).started()
        room.handle(worker).loaded(engine)
    room.handle("a").run(Batch(1, NAME, "a", (), 1, 0.0))
    loading = asyncio.ensure_future(room.pool.load_behind(card("new")))
    await asyncio.sleep(0)
    for worker in ("a", "b"):
        room.handle(worker).loaded("another")
    await loading
    room.handle("a").run(Batch(2, NAME, "a", (), 1, 0.0))
    for batch in (1, 2):
        room.handle("a").say(messages.Done(batch, 1, 2))
    assert [report.engine for report in room.events.reports] == ["openvino", "another"]


async def test_whatever_a_start_fails_of_it_is_tried_again(room: Room) -> None:
    room.get_ready("a")
    before = room.handle("a")
    FakeHandle.fail_starts = [RuntimeError("no thread"), ValueError("whatever"), OSError("no fd")]
    before.dies()
    await asyncio.wait_for(room.replaced("a", before), 30)
    room.get_ready("a")
    assert room.weights() == {"a": "old"}


async def test_a_replacement_that_fails_in_any_other_way_is_logged_and_tried_again(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    room.get_ready("a")
    before = room.handle("a")
    waits = [RuntimeError("can't start new thread")]

    async def wait() -> int:
        if waits:
            raise waits.pop()
        return -9

    monkeypatch.setattr(before, "wait", wait)
    before.dies()
    await asyncio.wait_for(room.replaced("a", before), 60)
    room.get_ready("a")
    assert room.weights() == {"a": "old"}
    assert "the replacement of worker a failed and goes on" in caplog.text
    assert "RuntimeError: can't start new thread" in caplog.text
