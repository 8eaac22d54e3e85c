"""Measures the variants of a family on a live server, in turns, by the server's own clock.

The time of a variant is what the paper reports: that of a forward pass over a large
batch, per image. It is the server's own figure of its answers, `compute_ns` over `batch_rows`, so
that neither the network nor this client is in it. On a GPU it includes the copies to and from it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from rootserve.client.catalog import Model, ServerInfo, Worker
from rootserve.client.compute_time import compute_ms
from rootserve.client.dataset import Dataset
from rootserve.client.errors import InputError, RootserveError
from rootserve.client.evaluate import accuracy
from rootserve.client.inference import AsyncClient
from rootserve.client.load.requests import random_images
from rootserve.client.selecting import select
from rootserve.client.stopping import unless_stopped
from rootserve.client.table8.rows import CATALOGUE, Column, Row, Table, Timing

# Images per batch for what the paper did not time.
_ROWS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure.

    Args:
        family: Whose variants; None takes the first that the server lists.
        models: Those of its variants whose names match (`rootserve.client.selecting`), and the original
            one, with which they are compared.
        rounds: How often each variant has its turn; at least 1.
        rows: Images per batch; None takes as many as the paper timed, 128 of what it has not, or the
            server's limit if that is less.
        data: Images and labels to measure the accuracy on; None takes the server's catalogue's.

    Raises:
        InputError: A value is out of its range.
    """

    family: str | None = None
    models: str = "*"
    rounds: int = 7
    rows: int | None = None
    data: Dataset | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= 1000:
            raise InputError(f"rounds {self.rounds}: expected 1 to 1,000")
        if self.rows is not None and self.rows < 1:
            raise InputError(f"rows {self.rows}: expected at least 1")


async def survey(client: AsyncClient, family: str | None = None, patterns: str = "*") -> Table:
    """What the server's catalogue tells of a family: costs, accuracies, and no times.

    Without a name, of the first that the server lists; with patterns, of the variants that match and the
    original one.

    Raises:
        InputError: The server knows no such family or serves none of it, a pattern matches no variant, or it
            computes on CPUs and GPUs at once.
        ServerError: A request failed.
    """
    info = await client.server_info()
    models = await _models(client, family, patterns)
    if not any(_is_served(model) for model in models):
        name = models[0].family if models else family
        raise InputError(f"the server at {client.address} serves no model of the family {name}")
    rows = [
        Row(
            name=model.name,
            topology=model.topology,
            flops=model.flops_paper,
            params=model.params,
            accuracy=model.accuracy,
            accuracy_source=None if model.accuracy is None else CATALOGUE,
            note=_note(model),
            paper=model.paper,
        )
        for model in models
    ]
    return Table(rows, _column(info.workers))


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a measurement, whether or not it came to its end.

    Attributes:
        table: With everything that was measured.
        complete: Whether that is all.
        failure: What ended it before, if not the user.
    """

    table: Table
    complete: bool
    failure: RootserveError | None = None


async def measure(
    client: AsyncClient,
    table: Table,
    plan: Plan,
    tell: Callable[[str], None] = lambda _: None,
    stop: asyncio.Event | None = None,
) -> Measured:
    """Add the times, and with data the accuracies, of every variant that the server serves.

    Args:
        client: A connected client.
        table: Its `survey`, perhaps merged with a table of the other kind of device.
        plan: How to measure.
        tell: Called with a few words at each step.
        stop: Set it to end early; what was measured until then is kept.

    Raises:
        InputError: The server takes no batch of so many rows.
        ServerError: The very first request failed.
        MalformedAnswer: The answers carry no timeline.
    """
    stop = stop or asyncio.Event()
    info = await client.server_info()
    models = await _models(client, plan.family, plan.models)
    served = {model.name: model for model in models if _is_served(model)}
    rows = _rows(plan, models, info.max_batch_rows)
    turns = _Turns(client, list(served.values()), rows, info)
    failure: RootserveError | None = None
    try:
        complete = await turns.take(plan.rounds, tell, stop)
    except RootserveError as error:
        if not turns.taken:
            raise
        complete, failure = False, error
    timings = turns.timings()
    filled = []
    for row in table.rows:
        timing = timings.get(row.name)
        if timing is None:
            filled.append(row)
            continue
        timed = replace(row, cpu=timing) if table.column == "cpu" else replace(row, gpu=timing)
        if plan.data and served[row.name].trained and complete:
            try:
                found = await unless_stopped(
                    stop, _with_accuracy(client, timed, plan.data, rows, tell)
                )
            except RootserveError as error:
                found, failure = None, error
            timed, complete = found or timed, found is not None
        filled.append(timed)
    return Measured(replace(table, rows=filled), complete, failure)


async def _models(client: AsyncClient, family: str | None, patterns: str) -> list[Model]:
    models = await client.models()
    families = list(dict.fromkeys(model.family for model in models))
    if family not in (None, *families):
        raise InputError(f"family {family!r}: expected {' or '.join(families)}")
    variants = [model for model in models if model.family == (family or families[0])]
    chosen = {model.name for model in select(variants, patterns)}
    # The others are compared with the original one.
    return [model for model in variants if model.name in chosen or model.topology == "orig"]


def _is_served(model: Model) -> bool:
    return model.state == "ready"


async def _with_accuracy(
    client: AsyncClient, row: Row, data: Dataset, rows: int, tell: Callable[[str], None]
) -> Row:
    tell(f"accuracy of {row.name} on {len(data.labels):,} images")
    share = await accuracy(client, row.name, data.images, data.labels, rows=rows)
    return replace(
        row, accuracy=share, accuracy_source=f"{len(data.labels):,} images through the service"
    )


class _Turns:
    """Has the variants take turns, and keeps the time of each."""

    def __init__(
        self, client: AsyncClient, models: Sequence[Model], rows: int, info: ServerInfo
    ) -> None:
        self._client = client
        self._models = models
        self._rows = rows
        self._info = info
        self._images = {
            size: random_images(rows, size, seed=0)
            for size in {model.image_size for model in models}
        }
        self._rounds_ms: dict[str, list[float]] = {model.name: [] for model in models}
        self._took_s: dict[str, float] = {}
        self._used: set[str] = set()

    @property
    def taken(self) -> int:
        """How many turns there were."""
        return sum(map(len, self._rounds_ms.values()))

    async def take(self, rounds: int, tell: Callable[[str], None], stop: asyncio.Event) -> bool:
        """Measure; False if the stop came first."""
        for number in range(rounds):
            # There and back again, so that a machine that slows down favours nobody.
            for model in self._models if number % 2 == 0 else reversed(self._models):
                tell(f"round {number + 1} of {rounds}: {model.name}{self._left(rounds)}")
                batch = self._images[model.image_size]
                began_s = time.perf_counter()
                turn = compute_ms(self._client, model.name, batch, self._used)
                time_ms = await unless_stopped(stop, turn)
                if time_ms is None:
                    return False
                self._took_s[model.name] = time.perf_counter() - began_s
                self._rounds_ms[model.name].append(time_ms)
        return True

    def _left(self, rounds: int) -> str:
        """How long the turns that are left will take, if those before tell it."""
        if len(self._took_s) < len(self._models):
            return ""
        left_s = sum(
            (rounds - len(self._rounds_ms[name])) * took_s for name, took_s in self._took_s.items()
        )
        return f", {left_s:.0f} s left"

    def timings(self) -> dict[str, Timing]:
        """The times of the rounds that all had a turn in; of the first one, those that had one."""
        info = self._info
        whole = max(1, min(map(len, self._rounds_ms.values())))
        worker = next((each for each in info.workers if each.name in self._used), info.workers[0])
        return {
            model.name: Timing(
                rounds_ms=times_ms[:whole],
                rows=self._rows,
                device=worker.device,
                device_name=worker.device_name,
                threads=worker.threads,
                engine=model.engine or "unknown",
                precision=model.precision or "unknown",
                server_version=info.version,
                libraries=info.libraries,
                measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            for model in self._models
            if (times_ms := self._rounds_ms[model.name])
        }


def _column(workers: Sequence[Worker]) -> Column:
    kinds: set[Column] = {"cpu" if worker.device == "cpu" else "gpu" for worker in workers}
    if len(kinds) != 1:
        devices = ", ".join(worker.device for worker in workers) or "no device"
        raise InputError(f"the server computes on {devices}: expected CPUs alone or GPUs alone")
    return kinds.pop()


def _rows(plan: Plan, models: Sequence[Model], most: int) -> int:
    if plan.rows is None:
        return min(next((model.paper_rows for model in models if model.paper_rows), _ROWS), most)
    if plan.rows > most:
        raise InputError(
            f"rows {plan.rows}: the server takes at most {most} in a batch (its --max-batch-rows)"
        )
    return plan.rows


def _note(model: Model) -> str | None:
    if _is_served(model):
        return None if model.trained else "random weights: no accuracy"
    if model.state == "unloaded":
        return "not served" if model.trained else "untrained and not served"
    reason = f": {model.state_reason}" if model.state_reason else ""
    return f"{model.state}{reason}"
