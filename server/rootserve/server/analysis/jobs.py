"""Analyses under way: admits them, has their chunks computed, merges the sums, derives the results."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rootmodels.analysis.derived import Derived, Kind
from rootmodels.analysis.layers import Stage
from rootmodels.analysis.sums import Plan, Sums
from rootserve.server.analysis import derived, messages
from rootserve.server.analysis.datasets import Dataset
from rootserve.server.analysis.helper import Helper, HelperJob, HelperLostError
from rootserve.server.models import ModelCard
from rootserve.server.observers.events import Observer
from rootserve.server.refusals import Reason, RefusalError

_log = logging.getLogger(__name__)

CHUNK_IMAGES = 64
"""Images per chunk: what is lost when a process dies, and what a cancelled analysis still computes."""

_MAX_ATTEMPTS = 3
_RATE_WINDOW_S = 5.0
_RETRY_AFTER_S = 5.0

_REASONS: Mapping[messages.Fault, Reason] = {
    "request": Reason.INVALID_REQUEST,
    "weights": Reason.LOAD_FAILED,
    "installation": Reason.NOT_IMPLEMENTED,
    "service": Reason.MODEL_FAILURE,
}


@dataclass(frozen=True, slots=True)
class AnalysisLimits:
    """What analyses may take: how many at a time, and images and bytes of images of one of them."""

    max_jobs: int
    max_images: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class PixelChunk:
    """Images that came with the call: uint8, RGB, [rows, 3, height, width]."""

    rows: int
    height: int
    width: int
    pixels: bytes


@dataclass(frozen=True, slots=True)
class DatasetChunk:
    """Images of a data set."""

    dataset: Dataset
    start: int
    rows: int


Chunk = PixelChunk | DatasetChunk


def dataset_chunks(dataset: Dataset, start: int, images: int) -> Iterator[DatasetChunk]:
    """``images`` of ``dataset`` from ``start`` on, cut into chunks."""
    for position in range(start, start + images, CHUNK_IMAGES):
        yield DatasetChunk(dataset, position, min(CHUNK_IMAGES, start + images - position))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an analysis is; ``remaining_s`` is None while that cannot be told."""

    images: int
    images_per_s: float
    elapsed_s: float
    remaining_s: float | None


class Analyses:
    """All analyses of the service. Lives on one event loop."""

    def __init__(
        self, helpers: Sequence[Helper], limits: AnalysisLimits, observer: Observer
    ) -> None:
        self.limits = limits
        self._helpers = tuple(helpers)
        self._observer = observer
        self._running: dict[int, Analysis] = {}
        self._numbers = itertools.count(1)
        self._inspections = 0
        self._places: set[Place] = set()
        self._closing = False
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def inspector(self) -> Helper:
        """The process that looks at single models."""
        return self._helpers[0]

    @contextmanager
    def open(self, card: ModelCard, plan: Plan, stage: Stage) -> Iterator[Analysis]:
        """An analysis of ``plan`` in the model of ``card``, which takes part in the limits.

        Raises:
            RefusalError: if as many run as may, or the service is shutting down.
        """
        self._check_open()
        self._check_room()
        number = next(self._numbers)
        analysis = Analysis(number, card, plan, stage, self._helpers, self._observer)
        self._running[number] = analysis
        self._observer.analysis_began(card.name)
        fields: dict[str, object] = {"model": card.name, "job": analysis.name}
        _log.info("analysis %s of %s began", analysis.name, card.name, extra=fields)
        outcome = "failed"
        try:
            yield analysis
            outcome = "ok"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        finally:
            del self._running[number]
            self._observer.analysis_ended(card.name, outcome)
            fields |= {"outcome": outcome, "images": analysis.sums.images}
            _log.info("analysis %s of %s: %s", analysis.name, card.name, outcome, extra=fields)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for sums that are sent here, from before the first comes until all is answered.

        Raises:
            RefusalError: as :meth:`open`.
        """
        self._check_open()
        self._check_room()
        place = Place(self)
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.remove(place)

    def hold(self, place: Place, size: int) -> None:
        """Have ``place`` hold sums of ``size`` bytes.

        Raises:
            RefusalError: if all places together would hold more than one call may send.
        """
        held = sum(other.size for other in self._places if other is not place)
        if held + size > self.limits.max_bytes:
            raise RefusalError(
                Reason.ANALYSES_FULL,
                f"other calls hold sums of {held} bytes, {size} more came, at most "
                f"{self.limits.max_bytes} are held at a time; try again later",
                _RETRY_AFTER_S,
            )
        place.size = max(place.size, size)

    async def derive(self, sums: Sums, kinds: Collection[Kind], tolerance: float) -> Derived:
        """What ``sums`` give, which have a :meth:`place`.

        Raises:
            RefusalError: if nothing can be derived of them.
        """
        begin = _begin(next(self._numbers), None, sums.plan, "", kinds)

        async def work() -> Derived:
            with HelperJob(self._helpers[0], begin) as job:
                return await _derive(job, begin.job, sums, kinds, tolerance)

        task = asyncio.create_task(work())
        await _unless(self._closed, {task})
        return task.result()

    def set_busy(self, device: str, busy: bool) -> None:
        """Inference has begun on ``device``, or has ended there: its process waits meanwhile."""
        for helper in self._helpers:
            if helper.device == device:
                helper.pause(paused=busy)

    async def close(self) -> None:
        """End every analysis, and the processes."""
        self._closing = True
        _refuse(self._closed)
        for analysis in tuple(self._running.values()):
            analysis.stop()
        await asyncio.gather(*(helper.close() for helper in self._helpers))

    async def inspect(
        self,
        card: ModelCard,
        request: Callable[[int], messages.Request],
        output_bytes: int = 1,
    ) -> tuple[messages.Reply, bytes]:
        """The reply to one request about the model of ``card``, and its output; takes part in the limits.

        ``request`` is made for the job's number. It is computed by the process :attr:`inspector`.

        Raises:
            RefusalError: as :meth:`open`, and if it cannot be answered.
        """
        self._check_open()
        self._check_room()
        number = next(self._numbers)
        begin = messages.Begin(number, card.name, _weights(card), "", (), (), 1, output_bytes)

        async def work() -> tuple[messages.Reply, bytes]:
            with HelperJob(self.inspector, begin) as job:
                return await _ask(job, request(number), b"")

        task = asyncio.create_task(work())
        self._inspections += 1
        try:
            await _unless(self._closed, {task})
        finally:
            self._inspections -= 1
        return task.result()

    def _check_room(self) -> None:
        running = len(self._running) + self._inspections + len(self._places)
        if running >= self.limits.max_jobs:
            raise RefusalError(
                Reason.ANALYSES_FULL,
                f"{running} analyses are running, which is the limit; try again later",
                _RETRY_AFTER_S,
            )

    def _check_open(self) -> None:
        if self._closing:
            raise RefusalError(Reason.DRAINING, "the server is shutting down; use another one")


class Place:
    """Room for the sums of one call, of which it holds at most two parts of ``size`` bytes at a time."""

    def __init__(self, analyses: Analyses) -> None:
        self._analyses = analyses
        self.size = 0

    def hold(self, size: int) -> None:
        """Hold ``size`` bytes from now on; may refuse as :meth:`Analyses.hold` does."""
        self._analyses.hold(self, size)


class Analysis:
    """One analysis: takes chunks, and has in ``sums`` those of all chunks that are done."""

    def __init__(
        self,
        number: int,
        card: ModelCard,
        plan: Plan,
        stage: Stage,
        helpers: tuple[Helper, ...],
        observer: Observer,
    ) -> None:
        self.name = f"analysis-{number}"
        self.number = number
        self.card = card
        self.plan = plan
        self.stage = stage
        self.sums = Sums.zero(plan)
        self.weights_sha256 = ""
        self._helpers = helpers
        self._observer = observer
        self._merging = asyncio.Lock()
        self._began_s = time.monotonic()
        self._history: deque[tuple[float, int]] = deque([(self._began_s, 0)])
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Have :meth:`run` and :meth:`derive` refuse: the service is shutting down."""
        _refuse(self._stopped)

    async def run(self, chunks: AsyncIterator[Chunk]) -> None:
        """Sum all ``chunks``, on all processes.

        Raises:
            RefusalError: if that cannot be done.
        """
        taking = asyncio.Lock()
        tasks = {
            asyncio.create_task(self._work(helper, chunks, taking)) for helper in self._helpers
        }
        await _unless(self._stopped, tasks)
        if self.sums.images == 0:
            raise RefusalError(Reason.INVALID_REQUEST, "no images came, expected at least one")

    async def derive(self, kinds: Collection[Kind], tolerance: float) -> Derived:
        """What the sums give.

        Raises:
            RefusalError: if nothing can be derived of them.
        """

        async def work() -> Derived:
            begin = _begin(self.number, self.card, self.plan, self.stage.value, kinds)
            with HelperJob(self._helpers[0], begin) as job:
                return await _derive(job, self.number, self.sums, kinds, tolerance)

        task = asyncio.create_task(work())
        await _unless(self._stopped, {task})
        return task.result()

    def progress(self, images_total: int) -> Progress:
        """How far it is; ``images_total`` is 0 while that is not known."""
        now = time.monotonic()
        history = self._history
        while len(history) > 2 and history[1][0] < now - _RATE_WINDOW_S:
            history.popleft()
        (then, before), (last, images) = history[0], history[-1]
        rate = (images - before) / (last - then) if last > then else 0.0
        remaining_s = None
        if rate > 0 and images_total >= images:
            remaining_s = max(0.0, (images_total - images) / rate - (now - last))
        return Progress(images, rate, now - self._began_s, remaining_s)

    async def _work(
        self, helper: Helper, chunks: AsyncIterator[Chunk], taking: asyncio.Lock
    ) -> None:
        """Take chunks, one after the other, until there are none."""
        begin = _begin(self.number, self.card, self.plan, self.stage.value, ())
        with HelperJob(helper, begin) as job:
            while True:
                async with taking:
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                data = await self._sum(job, chunk)
                # Merged once the whole chunk is there: done again or not, it counts once. In a thread,
                # because requests are waiting on this one.
                part = await asyncio.to_thread(Sums.from_bytes, self.plan, data)
                async with self._merging:
                    self.sums = await asyncio.to_thread(self.sums.merge, part)
                self._history.append((time.monotonic(), self.sums.images))
                self._observer.analysed(self.card.name, part.images)

    async def _sum(self, job: HelperJob, chunk: Chunk) -> bytes:
        """The sums of one chunk; done again when the process dies."""
        match chunk:
            case PixelChunk(rows, height, width, pixels):
                request: messages.Request = messages.Images(self.number, rows, height, width)
            case DatasetChunk(dataset, start, rows):
                pixels = b""
                request = messages.DatasetImages(
                    self.number, str(dataset.path), start, rows, dataset.height, dataset.width
                )
        reply, output = await _ask(job, request, pixels)
        assert isinstance(reply, messages.Summed)
        if self.weights_sha256 not in ("", reply.weights_sha256):
            text = (
                f"the weights of {self.card.name} were replaced during the analysis; start it again"
            )
            raise RefusalError(Reason.MODEL_NOT_READY, text)
        self.weights_sha256 = reply.weights_sha256
        return output[: Sums.byte_size(self.plan)]


def _refuse(stopped: asyncio.Future[None]) -> None:
    """Have whatever waits for ``stopped`` as well be refused: the service is shutting down."""
    if not stopped.done():
        stopped.set_exception(
            RefusalError(Reason.DRAINING, "the server is shutting down; use another one")
        )
        stopped.exception()  # seen, even if nothing runs


async def _unless(stopped: asyncio.Future[None], tasks: set[asyncio.Task[Any]]) -> None:
    """Wait for ``tasks``; the first failure, and that of ``stopped``, cancels all of them."""
    pending: set[asyncio.Future[Any]] = set(tasks)
    try:
        while pending:
            done, _ = await asyncio.wait(pending | {stopped}, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
            pending -= done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _weights(card: ModelCard) -> str | None:
    return str(card.weights) if card.weights else None


def _begin(
    number: int, card: ModelCard | None, plan: Plan, stage: str, kinds: Collection[Kind]
) -> messages.Begin:
    sums = Sums.byte_size(plan)
    pixels = CHUNK_IMAGES * card.pixels if card else 0
    return messages.Begin(
        job=number,
        model=card.name if card else "",
        weights=_weights(card) if card else None,
        stage=stage,
        layers=tuple(
            (layer.name, layer.channels, layer.height, layer.width, layer.groups)
            for layer in plan.layers
        ),
        pairs=plan.pairs,
        input_bytes=max(sums, pixels),
        output_bytes=max(sums, derived.largest_bytes(plan, kinds)),
    )


async def _derive(
    job: HelperJob, number: int, sums: Sums, kinds: Collection[Kind], tolerance: float
) -> Derived:
    request = messages.Derive(number, tuple(kind.value for kind in kinds), tolerance)
    reply, output = await _ask(job, request, await asyncio.to_thread(sums.to_bytes))
    assert isinstance(reply, messages.Derived)
    return derived.from_bytes(output[: reply.length])


async def _ask(
    job: HelperJob, request: messages.Request, content: bytes
) -> tuple[messages.Reply, bytes]:
    """Ask until there is a reply; a process that dies is replaced.

    Raises:
        RefusalError: if the request is at fault, or as many processes died of it as may.
    """
    for _ in range(_MAX_ATTEMPTS):
        try:
            reply, output = await job.ask(request, content)
        except HelperLostError as error:
            why = str(error)
            _log.warning("%s; what it was computing is computed again", why)
            continue
        if isinstance(reply, messages.Failed):
            raise RefusalError(_REASONS[reply.fault], reply.error)
        return reply, output
    text = f"{_MAX_ATTEMPTS} analysis processes died computing the same: {why}"
    raise RefusalError(Reason.WORKER_LOST, text)
