"""The workers together: starts them, has them load the models, replaces those that end."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from rootserve.server.background import keep_going
from rootserve.server.core.batch_size import Latency
from rootserve.server.core.scheduler import Batch
from rootserve.server.engines.registry import preferred_engines
from rootserve.server.models import Model, ModelCard, Models
from rootserve.server.pending import Report
from rootserve.server.workers import messages
from rootserve.server.workers.handle import WorkerHandle, WorkerSpec

_log = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 30.0
# After so many deaths in a row while loading, what waits for the worker is refused.
_HOPELESS_DEATHS = 3


class PoolEvents(Protocol):
    """What the pool tells whoever hands out the batches."""

    def model_measured(self, worker: str, model: str, latency: Latency, device_name: str) -> None:
        """A worker has loaded ``model``, and batches of it take so long on devices called so."""

    def worker_ready(self, worker: str, models: frozenset[str], device_name: str) -> None:
        """A worker can take batches of ``models``."""

    def batch_done(self, worker: str, batch: int, report: Report) -> None:
        """A worker is through with a batch; its output can be taken."""

    def batch_decoding(self, worker: str) -> None:
        """A worker is decoding pictures, and does not hang."""

    def batch_failed(self, worker: str, batch: int, error: str, report: Report) -> None:
        """The engine raised an exception; the report tells nothing but whose."""

    def worker_lost(self, worker: str) -> None:
        """A worker ended; what it had is not computed."""

    def model_failed(self, model: str) -> None:
        """No worker has ``model``, and one could not load it."""


class LoadError(RuntimeError):
    """A model could not be loaded; one line that says why."""


class LoadedModel(NamedTuple):
    """What a worker has: the card it was told to load, and what it said of it."""

    card: ModelCard
    told: messages.Loaded


@dataclass(slots=True)
class WorkerState:
    """What is known of a worker, for those who ask about the server."""

    spec: WorkerSpec
    handle: WorkerHandle | None = None
    device_name: str = ""
    loaded: dict[str, LoadedModel] = field(default_factory=dict)
    """Models it has, warm."""
    loading: ModelCard | None = None
    """What it loads before it is ready."""
    failed: dict[str, ModelCard] = field(default_factory=dict)
    """What it could not load, and need not try again."""
    batches: dict[int, messages.Loaded] = field(default_factory=dict)
    """What computes each batch it has: as it was when the batch was handed over."""
    ready: bool = False
    """Whether it takes batches."""
    backoff_s: float = _FIRST_BACKOFF_S
    behind: asyncio.Future[messages.Loaded] | None = None
    """A model that it loads while it goes on computing."""
    watch: asyncio.TimerHandle | None = None
    """Ends it if it does not say in time that it has started, or that it has loaded a model."""
    deaths_loading: int = 0
    """How often in a row it died before it was ready."""


class WorkerPool:
    """Owns the workers.

    Set ``events`` and ``on_models_changed``, which is called when the state of a model may have
    changed, before :meth:`start`. ``on_busy`` is called with a device and True before one of its workers
    gets a batch while none had one, and with False when none has one any more. A worker that takes
    longer than ``load_timeout_s`` to start, or to load a model, is replaced.
    """

    def __init__(self, specs: Sequence[WorkerSpec], models: Models, load_timeout_s: float) -> None:
        self.workers = {spec.name: WorkerState(spec) for spec in specs}
        self.handles: dict[str, WorkerHandle] = {}
        """Of the workers that run."""
        self.libraries: dict[str, str] = {}
        self.events: PoolEvents
        self.on_models_changed: Callable[[], None]
        self.on_busy: Callable[[str, bool], None] = lambda device, busy: None
        self._busy: set[str] = set()
        self._models = models
        self._load_timeout_s = load_timeout_s
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start every worker; they load their models in their own time."""
        for state in self.workers.values():
            self._start(state)

    async def stop(self) -> None:
        """End every worker."""
        self._stopping = True
        for state in self.workers.values():
            self._unwatch(state)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        handles = [state.handle for state in self.workers.values() if state.handle]
        await asyncio.gather(*(handle.stop() for handle in handles))

    async def load_behind(self, card: ModelCard) -> None:
        """Have every ready worker load ``card`` behind what runs, and swap it in when all have it.

        One that gets ready meanwhile loads it as well before any swaps; one that gets ready afterwards
        does so with ``card``: from the swap on, nobody computes with what was before. One call at a time.

        Raises:
            LoadError: if one of them cannot; what ran before goes on.
        """
        if not all(state.spec.has_room_for(card) for state in self.workers.values()):
            raise LoadError(
                f"{card.pixels} values per image and {len(card.classes)} classes are more than "
                "the workers were started for; restart the service"
            )
        done: dict[WorkerHandle, messages.Loaded] = {}
        errors: list[BaseException] = []
        while not errors:
            loading = {
                state.handle: self._load_behind(state, card)
                for state in self.workers.values()
                if state.ready and state.handle is not None and state.handle not in done
            }
            if not loading:
                break
            outcomes = await asyncio.gather(*loading.values(), return_exceptions=True)
            for handle, outcome in zip(loading, outcomes, strict=True):
                self.workers[handle.spec.name].behind = None
                if isinstance(outcome, BaseException):
                    errors.append(outcome)
                else:
                    done[handle] = outcome
        # Those that died meanwhile are replaced, and a replacement loads everything by itself.
        alive = {
            handle: self.workers[handle.spec.name]
            for handle in done
            if self.workers[handle.spec.name].handle is handle
        }
        if not errors and not alive:
            errors.append(LoadError("no worker is ready"))
        if errors:
            for handle in alive:
                handle.discard(card.name)
            raise LoadError(str(errors[0]))
        model = self._get(card.name)
        model.card, model.served = card, True
        for handle, state in alive.items():
            handle.swap(card.name)
            state.loaded[card.name] = LoadedModel(card, done[handle])
            self._announce(state)

    def _load_behind(self, state: WorkerState, card: ModelCard) -> asyncio.Future[messages.Loaded]:
        state.behind = asyncio.get_running_loop().create_future()
        self._load(state, card, behind=True)
        return state.behind

    def unload(self, name: str) -> None:
        """Have the workers forget a model for which nothing waits any more."""
        model = self._get(name)
        model.ready_on.clear()
        model.failures.clear()
        for state in self.workers.values():
            state.failed.pop(name, None)
            # One that loads has its models put right before it is ready.
            if not state.ready or state.handle is None:
                continue
            if state.loaded.pop(name, None) is not None:
                state.handle.discard(name, running=True)
                self._tell_ready(state)
        self.on_models_changed()

    def kill(self, worker: str, doing: str = "computing a batch") -> None:
        """End a worker that hangs; its end and its replacement are told as usual."""
        handle = self.workers[worker].handle
        if handle is not None:
            fields = {"worker": worker, "pid": handle.pid, "doing": doing}
            _log.error("worker %s hangs %s and is killed", worker, doing, extra=fields)
            handle.kill()

    def take_output(self, batch: Batch) -> bytes:
        """The logits [rows, classes] of a batch of which :meth:`PoolEvents.batch_done` just told."""
        classes = len(self._get(batch.model).card.classes)
        return self.handles[batch.worker].take_output(batch.id, batch.rows * classes)

    def _start(self, state: WorkerState) -> None:
        handle = WorkerHandle(state.spec, self._on_message, self._on_end, self._on_run)
        handle.start()
        state.handle = self.handles[state.spec.name] = handle
        self._watch(state, "starting")
        name, device = state.spec.name, state.spec.device
        fields = {"worker": name, "device": device, "pid": handle.pid}
        _log.info("worker %s started on %s, pid %d", name, device, handle.pid, extra=fields)

    def _load(self, state: WorkerState, card: ModelCard, *, behind: bool = False) -> None:
        assert state.handle is not None
        state.handle.load(card, behind=behind)
        self._watch(state, f"loading {card.name}")

    def _watch(self, state: WorkerState, doing: str) -> None:
        """Replace the worker if it is not through with ``doing`` in time."""
        self._unwatch(state)
        state.watch = asyncio.get_running_loop().call_later(
            self._load_timeout_s, self.kill, state.spec.name, doing
        )

    def _unwatch(self, state: WorkerState) -> None:
        if state.watch is not None:
            state.watch.cancel()
            state.watch = None

    def _on_run(self, handle: WorkerHandle, batch: Batch) -> None:
        device = handle.spec.device
        if device not in self._busy:
            self._busy.add(device)
            self.on_busy(device, True)
        state = self.workers[handle.spec.name]
        state.batches[batch.id] = state.loaded[batch.model].told

    def _on_message(self, handle: WorkerHandle, message: messages.Message) -> None:
        name = handle.spec.name
        match message:
            case messages.Done():
                told = self.workers[name].batches.pop(message.batch)
                report = Report(
                    message.began_ns,
                    message.ended_ns,
                    message.expired,
                    message.refused,
                    message.decode_ns,
                    told.engine,
                    told.precision,
                )
                self.events.batch_done(name, message.batch, report)
                self._check_idle(handle.spec.device)
            case messages.Decoding():
                self.events.batch_decoding(name)
            case messages.Failed():
                fields = {"worker": name, "pid": handle.pid, "error": message.error}
                _log.error("worker %s: a batch failed: %s", name, message.error, extra=fields)
                handle.drop_output(message.batch)
                told = self.workers[name].batches.pop(message.batch)
                report = Report(
                    0, time.monotonic_ns(), engine=told.engine, precision=told.precision
                )
                self.events.batch_failed(name, message.batch, message.error, report)
                self._check_idle(handle.spec.device)
            case _:
                self._on_progress(handle, message)

    def _on_progress(self, handle: WorkerHandle, message: messages.Message) -> None:
        """It is through with what :meth:`_watch` was told of."""
        name = handle.spec.name
        state = self.workers[name]
        self._unwatch(state)
        match message:
            case messages.Started():
                state.device_name = message.device_name
                self.libraries |= message.libraries
                self._load_next(state)
            case messages.Loaded():
                # The last resort is slower, and works: nobody would look.
                resort = preferred_engines(state.spec.device)[-1]
                _log.log(
                    logging.WARNING
                    if message.engine == resort != state.spec.engine
                    else logging.INFO,
                    "worker %s: %s is warm (%s %s, %.1f s)%s",
                    name,
                    message.model,
                    message.engine,
                    message.precision,
                    message.seconds,
                    f": {message.reason}" if message.reason else "",
                    extra={
                        "worker": name,
                        "pid": handle.pid,
                        "model": message.model,
                        "engine": message.engine,
                        "precision": message.precision,
                        "seconds": round(message.seconds, 3),
                    },
                )
                self.events.model_measured(name, message.model, message.latency, state.device_name)
                if state.ready:
                    assert state.behind is not None, "a ready worker loads behind"
                    state.behind.set_result(message)
                else:
                    assert state.loading is not None
                    state.loaded[message.model] = LoadedModel(state.loading, message)
                    self._load_next(state)
            case messages.LoadFailed():
                _log.error(
                    "worker %s cannot load %s: %s",
                    name,
                    message.model,
                    message.error,
                    extra={
                        "worker": name,
                        "pid": handle.pid,
                        "model": message.model,
                        "error": message.error,
                    },
                )
                if state.ready:
                    assert state.behind is not None, "a ready worker loads behind"
                    state.behind.set_exception(LoadError(message.error))
                    return
                assert state.loading is not None
                state.failed[message.model] = state.loading
                self._set_failure(message.model, name, message.error)
                self._load_next(state)
            case other:
                raise AssertionError(f"a worker does not say {other}")

    def _check_idle(self, device: str) -> None:
        """Tell when no worker of ``device`` has a batch any more."""
        if device not in self._busy:
            return
        for state in self.workers.values():
            if state.handle and state.handle.is_busy and state.spec.device == device:
                return
        self._busy.remove(device)
        self.on_busy(device, False)

    def _load_next(self, state: WorkerState) -> None:
        """Have it load one thing that it should have and has not; ready when there is nothing."""
        assert state.handle is not None
        wanted = {model.card.name: model.card for model in self._models.wanted()}
        for name in state.loaded.keys() - wanted.keys():
            del state.loaded[name]
            state.handle.discard(name, running=True)
        for name, card in wanted.items():
            has = state.loaded.get(name)
            # Another card may be wanted by now than when it began to load.
            if (has is None or has.card is not card) and state.failed.get(name) is not card:
                state.loading = card
                self._load(state, card)
                return
            if has is not None and has.card is not card:
                # What it has is not what is served, and what is served it cannot have.
                del state.loaded[name]
                state.handle.discard(name, running=True)
        state.loading = None
        self._announce(state)

    def _announce(self, state: WorkerState) -> None:
        """Everything is loaded that can be: from now on it takes batches.

        Not before: a batch would wait in the worker until the next model is loaded.
        """
        name = state.spec.name
        state.ready = True
        state.deaths_loading = 0
        state.backoff_s = _FIRST_BACKOFF_S
        for model_name, (_, told) in state.loaded.items():
            model = self._get(model_name)
            model.engine, model.precision = told.engine, told.precision
            model.failures.pop(name, None)
            model.ready_on.add(name)
            model.was_ready = True
        _log.info("worker %s is ready", name, extra={"worker": name})
        self._tell_ready(state)
        self.on_models_changed()

    def _tell_ready(self, state: WorkerState) -> None:
        self.events.worker_ready(state.spec.name, frozenset(state.loaded), state.device_name)

    def _set_failure(self, model_name: str, worker: str, reason: str) -> None:
        model = self._get(model_name)
        model.failures[worker] = reason
        if not model.ready_on:
            self.events.model_failed(model_name)
        self.on_models_changed()

    def _get(self, name: str) -> Model:
        model = self._models.get(name)
        assert model is not None, "workers load only models of the table"
        return model

    def _on_end(self, handle: WorkerHandle) -> None:
        state = self.workers[handle.spec.name]
        self._unwatch(state)
        if not self._stopping:
            replacing = functools.partial(self._replace, state, handle)
            name = f"the replacement of worker {handle.spec.name}"
            task = asyncio.get_running_loop().create_task(keep_going(name, replacing))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if state.behind is not None and not state.behind.done():
            state.behind.set_exception(LoadError("a worker died while loading"))
        state.deaths_loading += not state.ready
        state.handle = None
        del self.handles[handle.spec.name]
        state.ready = False
        state.loading = None
        state.loaded, state.failed, state.batches = {}, {}, {}
        for model in self._models.wanted():
            model.ready_on.discard(handle.spec.name)
        if state.deaths_loading >= _HOPELESS_DEATHS:
            reason = f"the worker died {state.deaths_loading} times in a row while loading"
            for model in self._models.wanted():
                self._set_failure(model.card.name, handle.spec.name, reason)
        self.events.worker_lost(handle.spec.name)
        self._check_idle(handle.spec.device)
        self.on_models_changed()

    async def _replace(self, state: WorkerState, ended: WorkerHandle) -> None:
        # A link that is closed by a process that lives on would be a worker that nobody hears.
        ended.kill()
        status = await ended.wait()
        name = state.spec.name
        ended_fields = {"worker": name, "pid": ended.pid, "status": status}
        _log.error("worker %s ended with status %d", name, status, extra=ended_fields)
        while state.handle is None:
            fields = {"worker": name, "backoff_s": state.backoff_s}
            _log.info("worker %s starts again in %.1f s", name, state.backoff_s, extra=fields)
            await asyncio.sleep(state.backoff_s)
            state.backoff_s = min(2 * state.backoff_s, _LONGEST_BACKOFF_S)
            try:
                self._start(state)
            except Exception:  # noqa: BLE001 - whatever it is, it may be over at the next try
                _log.exception("worker %s could not be started", name, extra={"worker": name})
