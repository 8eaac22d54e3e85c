"""Workers as the scheduler knows them: what each has, and when it is through with it."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from rootserve.server.core.decisions import Batch
from rootserve.server.core.latency import PIXELS, LatencyTable
from rootserve.server.core.limits import Limits
from rootserve.server.core.queue import form_of
from rootserve.server.core.speeds import Cost, beyond_s

_OPEN = 0.3
"""Of what one batch in a hundred takes beyond the mean: so much longer one takes that is not done by then."""


class Slot(NamedTuple):
    """A worker as policies see it, and when it is expected to be through with its batches.

    ``idle``: it has none. ``last``: the variant that it was given last, or nothing. ``variance`` and
    ``tail``: of ``free_s``, as of a :class:`rootserve.server.core.speeds.Cost`.
    """

    worker: str
    kind: str
    models: frozenset[str]
    free_s: float
    idle: bool
    last: str = ""
    variance: float = 0.0
    tail: float = 0.0

    def within_s(self, caution: float = 1.0) -> float:
        """When it is through with its batches at the latest, as :meth:`Cost.within_s` has it."""
        return self.free_s + caution * beyond_s(self.variance, self.tail)

    def after(self, cost: Cost) -> Slot:
        """The same once it is also through with a batch of this ``cost``."""
        return self._replace(
            free_s=self.free_s + cost.mean_s,
            variance=self.variance + cost.variance,
            tail=self.tail + cost.tail,
        )


@dataclass(slots=True)
class Worker:
    """A worker that can take batches. Those of one ``kind`` are equally fast.

    ``began_s``: since when it computes its first batch, or was last heard of at it; ``started_s``: since
    when it has that batch, which it was given while it was ``idle``; ``hangs_s``: when that one counts as
    hanging.
    """

    name: str
    models: frozenset[str]
    kind: str
    batches: OrderedDict[int, Batch] = field(default_factory=OrderedDict)
    began_s: float = 0.0
    started_s: float = 0.0
    hangs_s: float = math.inf
    last_given_s: float = -math.inf
    last_variant: str = ""
    hung: bool = False
    idle: bool = True

    def slot(self, now: float, hand_over_s: float) -> Slot:
        """What a policy sees of it, if an idle one needs so long until it begins."""
        free_s = self.started_s if self.batches else now
        if self.idle:
            free_s += hand_over_s
        variance = tail = 0.0
        for batch in self.batches.values():
            mean_s, own_variance, own_tail = batch.cost
            free_s += mean_s
            if free_s < now:  # it takes longer than the mean; how much longer is open
                beyond = beyond_s(own_variance, own_tail)
                left = max(1.0 - (now - free_s) / beyond, _OPEN) if beyond else 0.0
                free_s = now + _OPEN * left * beyond
                own_variance, own_tail = own_variance * left**2, own_tail * left**3
            variance += own_variance
            tail += own_tail
        return Slot(
            self.name,
            self.kind,
            self.models,
            free_s,
            not self.batches,
            self.last_variant,
            variance,
            tail,
        )


class Workers:
    """All workers that there are, by name."""

    def __init__(self, limits: Limits, table: LatencyTable) -> None:
        self._limits = limits
        self._table = table
        self._workers: dict[str, Worker] = {}
        self.kinds: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __getitem__(self, name: str) -> Worker:
        return self._workers[name]

    def copy(self) -> tuple[Worker, ...]:
        """Those that there are now, for other threads."""
        return tuple(self._workers.values())

    def ready(self, name: str, models: Iterable[str], kind: str) -> None:
        """``name`` can take batches of ``models``; told again when it can take those of others."""
        known = self._workers.get(name)
        if known is None:
            self._workers[name] = Worker(name, frozenset(models), kind)
            self.kinds = tuple(dict.fromkeys(worker.kind for worker in self))
        else:
            known.models = frozenset(models)

    def lost(self, name: str) -> Worker | None:
        """``name`` is dead; gives what it was, if it was known."""
        return self._workers.pop(name, None)

    def holds(self, request_id: int) -> bool:
        """Whether one of them has a request."""
        return any(
            request_id == request.id
            for worker in self
            for batch in worker.batches.values()
            for request in batch.requests
        )

    def give(self, worker: Worker, batch: Batch, now: float) -> None:
        """``worker`` computes ``batch`` once it is through with what it has."""
        worker.batches[batch.id] = batch
        if len(worker.batches) == 1:
            worker.idle = True
            worker.started_s = now
            self.begin(worker, now)
        worker.last_given_s = now
        worker.last_variant = batch.model

    def done(self, name: str, batch_id: int, now: float, compute_s: float | None) -> Batch:
        """``name`` is through with a batch; see :meth:`Scheduler.batch_done`."""
        worker = self._workers[name]
        batch = worker.batches.pop(batch_id)
        if compute_s is not None:
            # Promises are kept or broken when the answer is there: reading files counts.
            elapsed_s = max(compute_s, now - worker.started_s)
            form = form_of(batch.requests)
            if worker.idle:
                if form == PIXELS:
                    self._table.handed_over(elapsed_s - compute_s, worker.kind)
                elapsed_s = max(compute_s, elapsed_s - self._table.hand_over_s(worker.kind))
            self._table.learn(batch.model, batch.rows, compute_s, worker.kind, form, elapsed_s)
        worker.started_s = now
        worker.idle = not worker.batches
        self.begin(worker, now)
        return batch

    def begin(self, worker: Worker, now: float) -> None:
        """From ``now`` on, ``worker`` computes the first of its batches, if it has one."""
        worker.began_s, worker.hangs_s = now, math.inf
        running = next(iter(worker.batches.values()), None)
        if running is not None and not worker.hung:
            expected_s = self._table.predict(running.model, running.rows, worker.kind) or 0.0
            limits = self._limits
            worker.hangs_s = now + max(limits.hang_s, limits.hang_factor * expected_s)

    def find_hung(self, now: float) -> tuple[tuple[str, ...], float]:
        """Workers whose batch hangs by now, and when the next one would."""
        hung = []
        next_s = math.inf
        for worker in self:
            if worker.hangs_s <= now:
                worker.hung, worker.hangs_s = True, math.inf
                hung.append(worker.name)
            elif worker.hangs_s < next_s:
                next_s = worker.hangs_s
        return tuple(hung), next_s

    def ahead_s(self, worker: Worker, now: float) -> float:
        """When ``worker``, which computes, may be given a batch that is not full."""
        if self._limits.lead_s is None:
            return math.inf
        end_s = self.end_s(worker)
        return now if end_s is None else end_s - self._limits.lead_s

    def end_s(self, worker: Worker) -> float | None:
        """When the batch that ``worker`` computes is expected to be done; None if that is not known."""
        running = next(iter(worker.batches.values()))
        if running.model != running.requests[0].model:  # of a family, whose sizes vary much
            hand_over_s = self._table.hand_over_s(worker.kind) if worker.idle else 0.0
            return worker.began_s + hand_over_s + running.cost.mean_s
        expected_s = self._table.predict(running.model, running.rows, worker.kind)
        return None if expected_s is None else worker.began_s + expected_s

    def next_ahead_s(self, now: float) -> float:
        """When the first one may be given a batch ahead that is not full."""
        ready = [
            self.ahead_s(worker, now)
            for worker in self
            if worker.batches and len(worker.batches) <= self._limits.batches_ahead
        ]
        return max(now, min(ready, default=math.inf))

    def slots(self, now: float) -> tuple[list[Slot], int]:
        """All that work, and how many of them, which come first, may be given a batch now."""
        takers: list[Worker] = []
        others: list[Worker] = []
        for worker in self:
            if worker.hung:
                continue
            may_take = not worker.batches or (
                self._limits.lead_s is not None
                and len(worker.batches) <= self._limits.batches_ahead
                and self.ahead_s(worker, now) <= now
            )
            (takers if may_take else others).append(worker)
        if len(takers) > 1:
            takers.sort(key=lambda worker: (len(worker.batches), worker.last_given_s))
        slots = [
            worker.slot(now, self._table.hand_over_s(worker.kind)) for worker in (*takers, *others)
        ]
        return slots, len(takers)
