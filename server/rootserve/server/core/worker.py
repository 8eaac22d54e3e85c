"""Workers as the scheduler knows them: what each has, and when it is through with it."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, final

from rootserve.server.core.arrangement import kind_beside
from rootserve.server.core.decisions import Batch
from rootserve.server.core.latency import PIXELS
from rootserve.server.core.limits import Limits
from rootserve.server.core.queue import form_of
from rootserve.server.core.speeds import Cost, Speeds, beyond_s

_OPEN: Final = 0.3
"""Of what one batch in a hundred takes beyond the mean: so much longer one takes that is not done by then."""


@final
class Slot:
    """A worker as policies see it, and when it is expected to be through with its batches.

    ``idle``: it has none. ``last``: the variant that it was given last, or nothing. ``variance`` and
    ``tail``: of ``free_s``, as of a :class:`rootserve.server.core.speeds.Cost`.
    """

    __slots__ = ("free_s", "idle", "kind", "last", "models", "tail", "variance", "worker")

    def __init__(  # noqa: PLR0913, PLR0917 - what a worker is
        self,
        worker: str,
        kind: str,
        models: frozenset[str],
        free_s: float,
        idle: bool,
        last: str = "",
        variance: float = 0.0,
        tail: float = 0.0,
    ) -> None:
        self.worker, self.kind, self.models = worker, kind, models
        self.free_s, self.variance, self.tail = free_s, variance, tail
        self.idle, self.last = idle, last

    def is_like(self, other: Slot) -> bool:
        """Whether it is as fast as ``other``, and has the same variants."""
        if self.kind != other.kind:
            return False
        # Mostly they are the same set (:meth:`Workers.ready`), which need not be gone through.
        return self.models is other.models or self.models == other.models

    def within_s(self, caution: float = 1.0) -> float:
        """When it is through with its batches at the latest, as :meth:`Cost.within_s` has it."""
        return self.free_s + caution * beyond_s(self.variance, self.tail)

    def after(self, cost: Cost) -> Slot:
        """The same once it is also through with a batch of this ``cost``."""
        after = self.later(cost.mean_s)
        after.variance += cost.variance
        after.tail += cost.tail
        return after

    def later(self, seconds: float) -> Slot:
        """The same so much later."""
        return Slot(
            self.worker,
            self.kind,
            self.models,
            self.free_s + seconds,
            self.idle,
            self.last,
            self.variance,
            self.tail,
        )


@dataclass(slots=True)
class UnderWay:
    """A batch that is computed: since when, when it was last heard of, and when it counts as hanging.

    ``idle``: whether its worker had nothing to compute when it was given it.
    """

    batch: Batch
    started_s: float
    heard_s: float
    hangs_s: float = math.inf
    idle: bool = False


@dataclass(slots=True)
class Worker:
    """A worker that can take batches. Those of one ``kind`` are equally fast.

    ``lanes``: how many batches it computes side by side at most; with 1, one after the other. ``batches``
    are all it has, in the order in which it was given them; of those ``running`` are being computed.
    """

    name: str
    models: frozenset[str]
    kind: str
    lanes: int = 1
    batches: OrderedDict[int, Batch] = field(default_factory=OrderedDict)
    running: dict[int, UnderWay] = field(default_factory=dict)
    last_given_s: float = -math.inf
    last_variant: str = ""
    hung: bool = False

    def slot(self, now: float, hand_over_s: float, speeds: Speeds) -> Slot:
        """What a policy sees of it, if an idle one needs so long until it begins."""
        first = next(iter(self.running.values()), None)
        free_s = first.started_s if first else now
        if first is None or first.idle:
            free_s += hand_over_s
        variance = tail = last_s = 0.0
        for batch in self.batches.values():
            if batch.beside:
                # What it is predicted to take allows for those beside it.
                last_s = max(last_s, max(free_s, batch.formed_s) + (batch.predicted_s or 0.0))
                continue
            cost = batch.cost or speeds.of(batch.model, self.kind, form_of(batch.requests)).cost(
                batch.rows
            )
            own_variance, own_tail = cost.variance, cost.tail
            free_s += cost.mean_s
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
            max(free_s, last_s),
            not self.batches,
            self.last_variant,
            variance,
            tail,
        )

    @property
    def shares(self) -> bool:
        """Whether what it computes leaves room for others beside it; batches alone are one at a time."""
        one = next(iter(self.running.values()), None)
        return one is not None and one.batch.beside

    def may_join(self, streams: int, rows: int) -> bool:
        """Whether a batch of the ``rows`` that wait may begin beside those that it computes.

        It may as long as not all ``streams`` have an image. Then images wait for their turn, and one more
        batch is there only so that there is something to compute while the answers of the first are on
        their way: it may come as soon as it is half as large, or small ones would line up behind large
        ones.
        """
        batches = self.batches.values()
        if streams == 1 or not self.shares or len(batches) >= self.lanes:
            return False
        has = sum(batch.rows for batch in batches)
        return has < streams or (len(batches) < 2 and 2 * rows >= has)

    def may_take_ahead(self, batches_ahead: int) -> bool:
        """Whether it may be given one more batch, to be computed when it is through with what it has.

        Behind a batch that leaves room for others none is: those that join it would go first for ever.
        """
        return len(self.batches) <= batches_ahead and not any(
            batch.beside for batch in self.batches.values()
        )


class Workers:
    """All workers that there are, by name."""

    def __init__(self, limits: Limits, speeds: Speeds) -> None:
        self._limits = limits
        self._speeds = speeds
        self._table = speeds.table
        self._workers: dict[str, Worker] = {}
        self.kinds: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __getitem__(self, name: str) -> Worker:
        return self._workers[name]

    def copy(self) -> tuple[Worker, ...]:
        """Those that there are now, for other threads."""
        return tuple(self._workers.values())

    def ready(self, name: str, models: Iterable[str], kind: str, lanes: int = 1) -> None:
        """``name`` can take batches of ``models``; told again when it can take those of others."""
        known, same = self._workers.get(name), frozenset(models)
        for worker in self:
            if worker.models == same:
                same = worker.models
        if known is None:
            self._workers[name] = Worker(name, same, kind, lanes)
            self.kinds = tuple(dict.fromkeys(worker.kind for worker in self))
        else:
            known.models = same

    def lost(self, name: str) -> Worker | None:
        """``name`` is dead; gives what it was, if it was known."""
        return self._workers.pop(name, None)

    def any_idle(self) -> bool:
        """Whether one of them has nothing to compute."""
        return any(not worker.batches for worker in self)

    def holds(self, request_id: int) -> bool:
        """Whether one of them has a request."""
        return any(
            request_id == request.id
            for worker in self
            for batch in worker.batches.values()
            for request in batch.requests
        )

    def give(self, worker: Worker, batch: Batch, now: float) -> None:
        """``worker`` computes ``batch``: beside those of its kind, or once it is through with what it has."""
        worker.batches[batch.id] = batch
        self._begin(worker, now, idle=not worker.running)
        worker.last_given_s = now
        worker.last_variant = batch.model

    def done(self, name: str, batch_id: int, now: float, compute_s: float | None) -> Batch:
        """``name`` is through with a batch; see :meth:`Scheduler.batch_done`."""
        worker = self._workers[name]
        batch = worker.batches.pop(batch_id)
        was = worker.running.pop(batch_id, None)
        if compute_s is not None:
            # Promises are kept or broken when the answer is there: reading files counts.
            elapsed_s = max(compute_s, now - was.started_s) if was else compute_s
            form, kind = form_of(batch.requests), self._kind(worker, batch)
            if was and was.idle and not batch.beside:
                if form == PIXELS:
                    self._table.handed_over(elapsed_s - compute_s, worker.kind)
                elapsed_s = max(compute_s, elapsed_s - self._table.hand_over_s(worker.kind))
            self._table.learn(batch.model, batch.rows, compute_s, kind, form, elapsed_s)
        self._begin(worker, now)
        return batch

    @staticmethod
    def _kind(worker: Worker, batch: Batch) -> str:
        return kind_beside(worker.kind) if batch.beside else worker.kind

    def _begin(self, worker: Worker, now: float, *, idle: bool = False) -> None:
        """What ``worker`` computes now: the first of its batches, and those beside it."""
        running = worker.running
        for batch in worker.batches.values():
            if batch.id not in running:
                if running and not (batch.beside and worker.shares):
                    break
                running[batch.id] = self._heard(worker, UnderWay(batch, now, now, idle=idle), now)

    def heard(self, worker: Worker, now: float, batch_id: int | None = None) -> None:
        """``worker`` was heard of: at one of its batches, or at all that it computes."""
        for one in worker.running.values():
            if batch_id in (None, one.batch.id):
                self._heard(worker, one, now)

    def _heard(self, worker: Worker, one: UnderWay, now: float) -> UnderWay:
        one.heard_s = now
        if not worker.hung:
            kind, limits = self._kind(worker, one.batch), self._limits
            expected_s = self._table.predict(one.batch.model, one.batch.rows, kind) or 0.0
            one.hangs_s = now + max(limits.hang_s, limits.hang_factor * expected_s)
        return one

    def find_hung(self, now: float) -> tuple[tuple[str, ...], float]:
        """Workers whose batch hangs by now, and when the next one would."""
        hung = []
        next_s = math.inf
        for worker in self:
            hangs_s = min((one.hangs_s for one in worker.running.values()), default=math.inf)
            if hangs_s <= now:
                worker.hung = True
                for one in worker.running.values():
                    one.hangs_s = math.inf
                hung.append(worker.name)
            elif hangs_s < next_s:
                next_s = hangs_s
        return tuple(hung), next_s

    def ahead_s(self, worker: Worker, now: float) -> float:
        """When ``worker``, which computes, may be given a batch that is not full."""
        if self._limits.lead_s is None:
            return math.inf
        end_s = self.end_s(worker)
        return now if end_s is None else end_s - self._limits.lead_s

    def end_s(self, worker: Worker) -> float | None:
        """When the batch that ``worker`` computes is expected to be done; None if that is not known."""
        one = next(iter(worker.running.values()))
        batch = one.batch
        if batch.cost is not None:  # of a family, whose sizes vary much
            hand_over_s = self._table.hand_over_s(worker.kind) if one.idle else 0.0
            return one.heard_s + hand_over_s + batch.cost.mean_s
        expected_s = self._table.predict(batch.model, batch.rows, self._kind(worker, batch))
        return None if expected_s is None else one.heard_s + expected_s

    def next_ahead_s(self, now: float) -> float:
        """When the first one may be given a batch ahead that is not full."""
        if self._limits.lead_s is None:
            return math.inf
        ready = [
            self.ahead_s(worker, now)
            for worker in self
            if worker.batches and worker.may_take_ahead(self._limits.batches_ahead)
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
                and worker.may_take_ahead(self._limits.batches_ahead)
                and self.ahead_s(worker, now) <= now
            )
            (takers if may_take else others).append(worker)
        if len(takers) > 1:
            takers.sort(key=lambda worker: (len(worker.batches), worker.last_given_s))
        slots = [
            worker.slot(now, self._table.hand_over_s(worker.kind), self._speeds)
            for worker in (*takers, *others)
        ]
        return slots, len(takers)
