"""Measures a choice on a live server: the variants take turns, until all is known or the time is over.

In turns, because a machine's speed drifts: what slows down for a minute slows all of them. And because
whoever ends it early has something of each.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from rootserve.client.catalog import Model, ServerInfo
from rootserve.client.choice.candidate import Candidate
from rootserve.client.choice.document import Choice, Variant
from rootserve.client.choice.pareto import placed, recommend
from rootserve.client.choice.plan import Plan
from rootserve.client.compute_time import compute_ms
from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError, RootserveError, ServerError
from rootserve.client.evaluate import accuracy
from rootserve.client.inference import AsyncClient
from rootserve.client.load import LoadOptions, LoadResult, run_load
from rootserve.client.load.objective import Goals
from rootserve.client.load.requests import POOL_SIZE, random_images
from rootserve.client.load.seeking import RateSearch, first_rate, first_run
from rootserve.client.machine import describe_machine
from rootserve.client.selecting import select
from rootserve.client.stopping import stop_after, unless_stopped
from rootserve.client.telling import time_left
from rootserve.client.version import client_version

# A search is done when the 95 % interval of the rate is within this share of it, to both sides.
_PRECISION = 0.1
# Runs are short, and one of five may miss because of what else the machine does.
_STRAY_MISS = 0.2
# Of the time, for accuracies at most; and images of a turn.
_ACCURACY_SHARE, _ACCURACY_IMAGES = 0.25, 250
# What a run takes besides its own length: connecting, a first request, and the answers that are late.
_AROUND_S = 0.5
# What began in time, and still is not over so much after it, is ended.
_GRACE_S = 10.0
# An answer later than this has missed the objective; nobody waits for it any longer.
_PATIENCE, _LEAST_PATIENCE_S = 4.0, 2.0
# Images per batch where the server does not tell what it makes.
_ROWS = 16

Run = Callable[[LoadOptions, NDArray[np.uint8], asyncio.Event], Awaitable[LoadResult]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a measurement, whether or not it came to its end.

    Attributes:
        choice: With everything that was measured.
        failure: What ended it before its time, if not the user.
    """

    choice: Choice
    failure: RootserveError | None = None


async def _run(options: LoadOptions, images: NDArray[np.uint8], stop: asyncio.Event) -> LoadResult:
    return await run_load(options, images, stop=stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a measurement has around it.

    Attributes:
        tell: Called with a few words at each step.
        stop: Set it to end early; what was measured until then is kept.
        run: Makes a run.
        clock: Seconds that never go back.
    """

    tell: Callable[[str], None] = lambda _: None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    run: Run = _run
    clock: Callable[[], float] = time.monotonic


async def measure(
    client: AsyncClient, connection: Connection, plan: Plan, around: Surroundings | None = None
) -> Measured:
    """Measure all variants that the server serves, or those of the plan's patterns.

    Args:
        client: A connected client.
        connection: To the same server, for the runs.
        plan: How to measure.
        around: Who is told, and what ends it early.

    Raises:
        InputError: The server serves no such variant.
        RootserveError: Nothing could be measured at all.
    """
    info = await client.server_info()
    models = [model for model in await client.models() if model.state == "ready"]
    if not models:
        raise InputError(
            f"the server at {client.address} serves no model yet: expected one at least"
        )
    turns = _Turns(client, connection, plan, around or Surroundings())
    turns.describe(info, select(models, plan.models))
    failure: RootserveError | None = None
    try:
        await turns.take()
    except RootserveError as error:
        if not turns.runs:
            raise
        failure = error
    return Measured(turns.choice(), failure)


class _Turns:
    """Has the variants take turns."""

    def __init__(
        self, client: AsyncClient, connection: Connection, plan: Plan, around: Surroundings
    ) -> None:
        self._client = client
        self._connection = connection
        self._plan = plan
        self._tell, self._stop = around.tell, around.stop
        self._run, self._clock = around.run, around.clock
        self._began_s = around.clock()
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._chunks = self._accuracy_images = 0
        self.runs = 0

    def describe(self, info: ServerInfo, models: Sequence[Model]) -> None:
        """What the server is, and which of its models are measured."""
        plan = self._plan
        self._info = info
        self._budget_s = plan.budget_s(len(models))
        self._candidates = [
            Candidate(model, min(model.batch_rows or _ROWS, info.max_batch_rows or _ROWS))
            for model in models
        ]
        rows = max(plan.rows * POOL_SIZE, *(each.compute_rows for each in self._candidates))
        sizes = {model.image_size for model in models}
        self._images = {size: random_images(_pool(rows, size), size, seed=0) for size in sizes}

    @property
    def _left_s(self) -> float:
        return self._began_s + self._budget_s - self._clock()

    async def take(self) -> None:
        """Measure until all is known, the time is over, or the stop comes.

        Nothing begins that would end later. What takes longer all the same gets a little more time; then it
        is ended and does not count.
        """
        with stop_after(self._stop, self._left_s + _GRACE_S) as self._over:
            await self._take()

    async def _take(self) -> None:
        if self._plan.data is not None:
            await self._accuracies()
        number = 0
        while number == 0 or self._unsettled():
            number += 1
            # There and back again, so that a machine that slows down favours nobody.
            order = self._candidates if number % 2 else self._candidates[::-1]
            ran = [await self._turn(each, number) for each in order if not each.is_settled]
            if self._over.is_set() or not any(ran):
                return

    def _unsettled(self) -> list[Candidate]:
        return [each for each in self._candidates if not each.is_settled]

    async def _turn(self, candidate: Candidate, number: int) -> bool:
        """A run of the candidate; False if it did not come to one."""
        options = self._next(candidate)
        if self._over.is_set() or options.longest_s + _AROUND_S > self._left_s:
            return False
        settled = len(self._candidates) - len(self._unsettled())
        self._tell(
            f"round {number}: {candidate.name}, {options.label}; {settled} of "
            f"{len(self._candidates)} settled, {time_left(self._left_s)} left at most"
        )
        try:
            await self._measure(candidate, options)
        except ServerError as error:
            # It may be that one alone; the others go on. If the server is away, the next run says so.
            candidate.failure = str(error)
            if all(each.failure for each in self._candidates):
                raise
        return True

    def _next(self, candidate: Candidate) -> LoadOptions:
        plan = self._plan
        options = LoadOptions(
            model=candidate.name,
            server=self._connection.server,
            credentials=self._connection.credentials,
            concurrency=1,
            duration_s=plan.duration_s,
            warmup_s=plan.warmup_s,
            rows=plan.rows,
            timeout_s=max(_LEAST_PATIENCE_S, _PATIENCE * plan.p99_s),
        )
        if candidate.search is None:
            return first_run(options)
        found = candidate.search.next_run()
        assert found is not None  # it is not settled
        return found

    async def _measure(self, candidate: Candidate, options: LoadOptions) -> None:
        images = self._images[candidate.model.image_size]
        turn = compute_ms(self._client, candidate.name, images[: candidate.compute_rows], set())
        time_ms = await unless_stopped(self._over, turn)
        if time_ms is None:
            return
        candidate.times_ms.append(time_ms)
        result = await self._run(options, images, self._over)
        if result.interrupted:
            return
        self.runs += 1
        if candidate.search is None:
            candidate.callers = result
            candidate.search = RateSearch(
                options,
                Goals(p99_s=self._plan.p99_s),
                precision=_PRECISION,
                start=first_rate(result),
                stray_miss=_STRAY_MISS,
            )
        else:
            candidate.search.tell(options, result, self.runs - 1)
            candidate.results.append(result)

    async def _accuracies(self) -> None:
        """Send images to all in turns, the same ones, while there are more and it is their time."""
        data = self._plan.data
        assert data is not None
        until_s = (1 - _ACCURACY_SHARE) * self._budget_s
        for start in range(0, len(data.labels), _ACCURACY_IMAGES):
            images = data.images[start : start + _ACCURACY_IMAGES]
            labels = data.labels[start : start + _ACCURACY_IMAGES]
            for candidate in self._trained():
                if self._left_s < until_s:
                    return
                self._tell(
                    f"accuracy of {candidate.name}: {start:,} of {len(data.labels):,} images, "
                    f"{time_left(self._left_s)} left at most"
                )
                work = accuracy(self._client, candidate.name, images, labels)
                try:
                    share = await unless_stopped(self._over, work)
                except ServerError as error:
                    candidate.failure = str(error)
                    if all(each.failure for each in self._candidates):
                        raise
                    continue
                if share is None:
                    return
                candidate.correct.append(round(share * len(labels)))
            self._chunks += 1
            self._accuracy_images += len(labels)

    def _trained(self) -> Iterator[Candidate]:
        return (each for each in self._candidates if each.model.trained and not each.failure)

    def choice(self) -> Choice:
        """What was measured, and what follows."""
        plan = self._plan
        found = [each.variant(self._chunks, self._accuracy_images) for each in self._candidates]
        variants: list[Variant] = placed(found)
        return Choice(
            p99_s=plan.p99_s,
            rows=plan.rows,
            rate=plan.rate,
            started_at=self._started_at,
            took_s=self._clock() - self._began_s,
            budget_s=self._budget_s,
            complete=all(each.complete for each in variants),
            interrupted=self._stop.is_set(),
            recommendation=recommend(variants, plan.p99_s, plan.rate),
            variants=tuple(variants),
            server=self._info.to_json(),
            client={"version": client_version(), **describe_machine()},
        )


def _pool(rows: int, size: int) -> int:
    """So many images, or fewer of large ones: 64 MiB at most."""
    return max(1, min(rows, 2**26 // (3 * size * size)))
