"""The workers together: starts them, brings each to what is desired, replaces those that end."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rootserve.server.background import keep_going
from rootserve.server.core.arrangement import Streams
from rootserve.server.core.batch_size import Latency
from rootserve.server.core.scheduler import Batch
from rootserve.server.engines.registry import preferred_engines
from rootserve.server.models import Held, Model, ModelCard, Models, WorkerState
from rootserve.server.pending import Report
from rootserve.server.workers import messages
from rootserve.server.workers.handle import WorkerHandle, WorkerSpec
from rootserve.server.workers.reconcile import Discard, GetReady, Load, Swap, next_step

_log = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 30.0
# After so many deaths in a row while loading, what waits for the worker is refused.
_HOPELESS_DEATHS = 3


class PoolEvents(Protocol):
    """What the pool tells whoever hands out the batches."""

    def model_measured(
        self, worker: str, model: str, latency: Latency, device_name: str, streams: Streams
    ) -> None:
        """A worker has loaded ``model``, and batches of it take so long on devices called so."""

    def worker_ready(
        self, worker: str, models: frozenset[str], device_name: str, lanes: int
    ) -> None:
        """A worker can take batches of ``models``, and compute ``lanes`` of them side by side at most."""

    def batch_done(self, worker: str, batch: int, report: Report) -> None:
        """A worker is through with a batch; its output can be taken."""

    def batch_decoding(self, worker: str, batch: int) -> None:
        """A worker is decoding the pictures of a batch, and does not hang."""

    def batch_failed(self, worker: str, batch: int, error: str, report: Report) -> None:
        """The engine raised an exception; the report tells nothing but whose."""

    def worker_lost(self, worker: str) -> None:
        """A worker ended; what it had is not computed."""

    def model_failed(self, model: str) -> None:
        """No worker has ``model``, and one could not load it."""


class LoadError(RuntimeError):
    """A model could not be loaded; one line that says why."""


@dataclass(slots=True)
class Worker:
    """A worker: what it is, what it has, and its process while there is one."""

    spec: WorkerSpec
    state: WorkerState
    handle: WorkerHandle | None = None
    device_name: str = ""
    started: bool = False
    """Whether its process has said so."""
    batches: dict[int, Held] = field(default_factory=dict)
    """What computes each batch it has: as it was when the batch was handed over."""
    backoff_s: float = _FIRST_BACKOFF_S
    watch: asyncio.TimerHandle | None = None
    """Ends it if it does not say in time that it has started, or that it has loaded a model."""
    deaths_loading: int = 0
    """How often in a row it died before it was ready."""


class WorkerPool:
    """Owns the workers, and brings them to what the models say is desired.

    Set ``events`` and ``on_models_changed``, which is called when the state of a model may have
    changed, before :meth:`start`. ``on_busy`` is called with a device and True before one of its workers
    gets a batch while none had one, and with False when none has one any more. A worker that takes
    longer than ``load_timeout_s`` to start, or to load a model, is replaced.
    """

    def __init__(self, specs: Sequence[WorkerSpec], models: Models, load_timeout_s: float) -> None:
        self.workers: dict[str, Worker] = {}
        for spec in specs:
            state = models.workers[spec.name] = WorkerState()
            self.workers[spec.name] = Worker(spec, state)
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
        self._staged: asyncio.Future[None] | None = None
        """Of a load: every worker that is ready has the new card behind."""

    def start(self) -> None:
        """Start every worker; they load their models in their own time."""
        for worker in self.workers.values():
            self._start(worker)

    async def stop(self) -> None:
        """End every worker."""
        self._stopping = True
        for worker in self.workers.values():
            self._unwatch(worker)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(handle.stop() for handle in self.handles.values()))

    # What is desired.

    async def load_behind(self, card: ModelCard) -> None:
        """Have every ready worker load ``card`` behind what runs, and serve it when all have it.

        One that gets ready meanwhile loads it as well before any swaps; one that gets ready afterwards
        does so with ``card``: from the swap on, nobody computes with what was before. One call at a time.

        Raises:
            LoadError: if one of them cannot; what ran before goes on.
        """
        if not all(worker.spec.has_room_for(card) for worker in self.workers.values()):
            raise LoadError(
                f"{card.pixels} values per image and {len(card.classes)} classes are more than "
                "the workers were started for; restart the service"
            )
        model = self._models[card.name]
        model.next = card
        self._staged = asyncio.get_running_loop().create_future()
        try:
            self.reconcile()
            await self._staged
            model.card, model.served = card, True
        finally:
            model.next = self._staged = None
            self.reconcile()

    def reconcile(self) -> None:
        """Bring every worker nearer to what is desired, and tell of what has changed."""
        for worker in self.workers.values():
            if worker.started:
                self._reconcile(worker)
        self._check_staging()
        self.on_models_changed()

    def _reconcile(self, worker: Worker) -> None:
        """Have it do all that it can do now."""
        state, handle = worker.state, worker.handle
        assert handle is not None
        tell = False
        while (step := next_step(self._models, state)) is not None:
            match step:
                case Discard(name, running):
                    state.staged.pop(name, None)
                    if running:
                        del state.held[name]
                        tell = state.ready
                    handle.discard(name, running=running)
                case Swap(name):
                    handle.swap(name)
                    state.held[name] = state.staged.pop(name)
                    tell = state.ready
                case Load(card, behind):
                    state.loading = card
                    handle.load(card, behind=behind)
                    self._watch(worker, f"loading {card.name}")
                case GetReady():
                    state.ready, state.trouble = True, ""
                    worker.deaths_loading, worker.backoff_s = 0, _FIRST_BACKOFF_S
                    name = worker.spec.name
                    _log.info("worker %s is ready", name, extra={"worker": name})
                    tell = True
        if tell:
            for name, held in state.held.items():
                self._models[name].last = held
            self.events.worker_ready(
                worker.spec.name, frozenset(state.held), worker.device_name, worker.spec.lanes
            )

    def _check_staging(self) -> None:
        """Go on with a load if every worker that is ready has the new card behind."""
        if self._staged is None or self._staged.done():
            return
        (model,) = (model for model in self._models if model.next is not None)
        ready = [worker.state for worker in self.workers.values() if worker.state.ready]
        if not ready:
            self._fail_staging("no worker is ready")
        elif all(model.card.name in state.staged for state in ready):
            self._staged.set_result(None)

    def _fail_staging(self, why: str) -> None:
        if self._staged is not None and not self._staged.done():
            for model in self._models:
                model.next = None
            self._staged.set_exception(LoadError(why))

    # Workers.

    def kill(self, name: str, doing: str = "computing a batch") -> None:
        """End a worker that hangs; its end and its replacement are told as usual."""
        handle = self.workers[name].handle
        if handle is not None:
            fields = {"worker": name, "pid": handle.pid, "doing": doing}
            _log.error("worker %s hangs %s and is killed", name, doing, extra=fields)
            handle.kill()

    def take_output(self, batch: Batch) -> bytes:
        """The logits [rows, classes] of a batch of which :meth:`PoolEvents.batch_done` just told."""
        classes = len(self._models[batch.model].card.classes)
        return self.handles[batch.worker].take_output(batch.id, batch.rows * classes)

    def _start(self, worker: Worker) -> None:
        handle = WorkerHandle(worker.spec, self._on_message, self._on_end, self._on_run)
        handle.start()
        name, device = worker.spec.name, worker.spec.device
        worker.handle = self.handles[name] = handle
        self._watch(worker, "starting")
        fields = {"worker": name, "device": device, "pid": handle.pid}
        _log.info("worker %s started on %s, pid %d", name, device, handle.pid, extra=fields)

    def _watch(self, worker: Worker, doing: str) -> None:
        """Replace the worker if it is not through with ``doing`` in time."""
        self._unwatch(worker)
        worker.watch = asyncio.get_running_loop().call_later(
            self._load_timeout_s, self.kill, worker.spec.name, doing
        )

    def _unwatch(self, worker: Worker) -> None:
        if worker.watch is not None:
            worker.watch.cancel()
            worker.watch = None

    def _on_run(self, handle: WorkerHandle, batch: Batch) -> None:
        device = handle.spec.device
        if device not in self._busy:
            self._busy.add(device)
            self.on_busy(device, True)
        worker = self.workers[handle.spec.name]
        worker.batches[batch.id] = worker.state.held[batch.model]

    def _check_idle(self, device: str) -> None:
        """Tell when no worker of ``device`` has a batch any more."""
        if device not in self._busy:
            return
        if not any(h.is_busy for h in self.handles.values() if h.spec.device == device):
            self._busy.remove(device)
            self.on_busy(device, False)

    def _on_message(self, handle: WorkerHandle, message: messages.Message) -> None:
        worker = self.workers[handle.spec.name]
        match message:
            case messages.Done():
                held = worker.batches.pop(message.batch)
                report = Report(
                    message.began_ns,
                    message.ended_ns,
                    message.expired,
                    message.refused,
                    message.decode_ns,
                    *held.told,
                )
                self.events.batch_done(worker.spec.name, message.batch, report)
                self._check_idle(handle.spec.device)
            case messages.Decoding():
                self.events.batch_decoding(worker.spec.name, message.batch)
            case messages.Failed():
                fields = {"worker": worker.spec.name, "pid": handle.pid, "error": message.error}
                text = "worker %s: a batch failed: %s"
                _log.error(text, worker.spec.name, message.error, extra=fields)
                handle.drop_output(message.batch)
                held = worker.batches.pop(message.batch)
                ended_ns = time.monotonic_ns()
                report = Report(0, ended_ns, (), (), 0, *held.told)
                self.events.batch_failed(worker.spec.name, message.batch, message.error, report)
                self._check_idle(handle.spec.device)
            case _:
                self._unwatch(worker)
                self._on_progress(worker, message)
                self.reconcile()

    def _on_progress(self, worker: Worker, message: messages.Message) -> None:
        """It is through with what :meth:`_watch` was told of."""
        state = worker.state
        match message:
            case messages.Started():
                worker.started, worker.device_name = True, message.device_name
                self.libraries |= message.libraries
            case messages.Loaded():
                assert state.loading is not None
                _tell_loaded(worker, state.loading, message)
                name = message.model
                streams = Streams(message.streams, message.speed_up)
                self.events.model_measured(
                    worker.spec.name, name, message.latency, worker.device_name, streams
                )
                place = state.staged if state.ready else state.held
                place[name] = Held(state.loading, message.engine, message.precision)
                state.loading = None
            case messages.LoadFailed():
                name, error = message.model, message.error
                fields = {"worker": worker.spec.name, "model": name, "error": error}
                text = "worker %s cannot load %s: %s"
                _log.error(text, worker.spec.name, name, error, extra=fields)
                card, state.loading = state.loading, None
                assert card is not None
                if state.ready:
                    if card is self._models[name].next:
                        self._fail_staging(error)
                    return
                state.failed[name] = card, error
                self._check_failed(self._models[name])
            case other:
                raise AssertionError(f"a worker does not say {other}")

    def _check_failed(self, model: Model) -> None:
        if not model.is_held:
            self.events.model_failed(model.card.name)

    def _on_end(self, handle: WorkerHandle) -> None:
        worker, name = self.workers[handle.spec.name], handle.spec.name
        state = worker.state
        self._unwatch(worker)
        if not self._stopping:
            replacing = functools.partial(self._replace, worker, handle)
            task = asyncio.get_running_loop().create_task(
                keep_going(f"the replacement of worker {name}", replacing)
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if state.loading is not None and state.loading is self._models[state.loading.name].next:
            self._fail_staging("a worker died while loading")
        worker.deaths_loading += not state.ready
        worker.handle, worker.started = None, False
        del self.handles[name]
        worker.batches = {}
        state.reset()
        if worker.deaths_loading >= _HOPELESS_DEATHS:
            times = worker.deaths_loading
            state.trouble = f"the worker died {times} times in a row while loading"
            for model in self._models.wanted():
                self._check_failed(model)
        self.events.worker_lost(name)
        self._check_idle(handle.spec.device)
        self.reconcile()

    async def _replace(self, worker: Worker, ended: WorkerHandle) -> None:
        # A link that is closed by a process that lives on would be a worker that nobody hears.
        ended.kill()
        status = await ended.wait()
        name = worker.spec.name
        ended_fields = {"worker": name, "pid": ended.pid, "status": status}
        _log.error("worker %s ended with status %d", name, status, extra=ended_fields)
        while worker.handle is None:
            fields = {"worker": name, "backoff_s": worker.backoff_s}
            _log.info("worker %s starts again in %.1f s", name, worker.backoff_s, extra=fields)
            await asyncio.sleep(worker.backoff_s)
            worker.backoff_s = min(2 * worker.backoff_s, _LONGEST_BACKOFF_S)
            try:
                self._start(worker)
            except Exception:  # noqa: BLE001 - whatever it is, it may be over at the next try
                _log.exception("worker %s could not be started", name, extra={"worker": name})


def _tell_loaded(worker: Worker, card: ModelCard, loaded: messages.Loaded) -> None:
    """Log what a model is computed with."""
    # The last resort is slower, and works: nobody would look.
    resort = preferred_engines(worker.spec.device)[-1]
    is_resort = loaded.engine == resort != worker.spec.engine
    _log.log(
        logging.WARNING if is_resort else logging.INFO,
        "worker %s: %s is warm (%s %s, %.1f s)%s",
        worker.spec.name,
        loaded.model,
        loaded.engine,
        loaded.precision,
        loaded.seconds,
        f": {loaded.reason}" if loaded.reason else "",
        extra={
            "worker": worker.spec.name,
            "pid": worker.handle.pid if worker.handle else 0,
            "model": loaded.model,
            "engine": loaded.engine,
            "precision": loaded.precision,
            "seconds": round(loaded.seconds, 3),
            "version": card.version,
            "weights": card.weights_id,
        },
    )
