"""Lays out what is due in batches, as late as possible: from the last deadline back.

Each batch is of the fastest variant that its requests may be computed by, on whichever worker may begin it
latest. What was laid out is remembered: a newcomer, or one that is taken, changes nothing of the batches
whose requests are all due later, and from there on the layout is continued.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

from rootserve.server.core.lane import Key, Lane
from rootserve.server.core.layout import Layout, Step
from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Cost, Speed

_NEVER_S: Final = -math.inf

Able = list[tuple[Speed, list[int]]]
"""Who may compute a lane: how fast kinds of workers are, and which ones they are, by number."""


@final
class Due:
    """A lane that is laid out, and who may compute it."""

    __slots__ = ("able", "lane")

    def __init__(self, lane: Lane, able: Able) -> None:
        self.lane, self.able = lane, able


@final
class _Left:
    """What is left of a lane while it is laid out: all before ``end``, the last due at ``due_s``."""

    __slots__ = ("able", "due_s", "end", "lane")

    def __init__(self, due: Due) -> None:
        self.lane, self.able = due.lane, due.able
        due.lane.is_shared = True
        self.end: int
        self.due_s: float
        self.before(len(due.lane.due))

    def before(self, end: int) -> None:
        """What comes before ``end`` is left."""
        self.end = end
        self.due_s = self.lane.due[end - 1] if end > self.lane.begin else _NEVER_S


class Packing:
    """Layouts in batches that have at least one of so many ``parts`` of the rows they had best have.

    If there are as many.
    """

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._last: Layout | None = None
        self._able: dict[Key, Able] = {}
        """Of the last layout."""
        self._changed_s = -math.inf
        self._tried: tuple[Layout, dict[Key, Able], Request] | None = None
        """A layout with one that may be promised yet, who is able to compute it, and that one."""

    def changed(self, due_s: float) -> None:
        """What is to be laid out is no longer the same; nothing that is due later than that was changed."""
        self._changed_s = max(self._changed_s, due_s)
        self._tried = None

    def added(self, request: Request) -> None:
        """Besides what was to be laid out, ``request`` is: as it was laid out last, if it was tried."""
        if self._tried is None or self._tried[2] is not request:
            self.changed(request.deadline_s)
            return
        self._last, self._able, _ = self._tried
        self._changed_s = -math.inf
        self._tried = None

    def layout(self, lanes: Sequence[Due], workers: int) -> Layout:
        """All that is due, laid out for so many ``workers``."""
        if (
            self._last is not None
            and self._changed_s == -math.inf
            and workers == len(self._last.lines)
            and self._able == _able(lanes)
        ):
            return self._last
        return self.layout_without(lanes, workers, -math.inf)

    def layout_without(self, lanes: Sequence[Due], workers: int, taken_s: float) -> Layout:
        """The ``lanes`` that are left of all that is due without some, up to ``taken_s``."""
        steps = self._unchanged(lanes, workers, taken_s)
        self._last = Layout(self._go_on(steps, lanes, workers), workers)
        self._able = _able(lanes)
        self._changed_s = taken_s
        return self._last

    def layout_with_one(self, lanes: Sequence[Due], workers: int, request: Request) -> Layout:
        """The ``lanes`` of all that is due and of ``request``, which may never be."""
        steps = self._unchanged(lanes, workers, request.deadline_s)
        layout = Layout(self._go_on(steps, lanes, workers), workers)
        self._tried = layout, _able(lanes), request
        return layout

    def _unchanged(self, lanes: Sequence[Due], workers: int, changed_s: float) -> list[Step]:
        """The first batches laid out last that are the same, if what is due up to ``changed_s`` is not.

        They are if all in them is due later, and so is the request before them, which was too much for them.
        """
        if self._last is None or workers != len(self._last.lines):
            return []
        steps, changed_s = self._last.steps, max(changed_s, self._changed_s)
        if not steps or steps[0].due_s <= changed_s:
            return []
        now: dict[Key, Lane] = {}
        for each in lanes:
            key = each.lane.key
            now[key] = each.lane
            if self._able.get(key, each.able) != each.able:
                return []
        for count, step in enumerate(steps):
            if step.due_s <= changed_s:
                return steps[:count]
            lane = now[step.lane.key]
            begin = len(lane.due) - step.behind
            if begin > lane.begin and lane.due[begin - 1] <= changed_s:
                return steps[:count]
        return steps[:]

    def _go_on(self, steps: list[Step], lanes: Sequence[Due], workers: int) -> list[Step]:
        """All of ``lanes`` laid out, beginning with these ``steps``, to which the others are added."""
        if not all(each.able for each in lanes):
            return [_never(worker) for worker in range(workers)]
        starts = [math.inf] * workers
        left = [_Left(each) for each in lanes]
        if steps:
            by_key = {each.lane.key: each for each in left}
            for step in steps:
                starts[step.worker] = step.start_s
                known = by_key[step.lane.key]
                known.before(len(known.lane.due) - step.behind)
        while True:
            latest, due_s = None, _NEVER_S
            for each in left:
                if each.due_s > due_s:
                    latest, due_s = each, each.due_s
            if latest is None:
                return steps
            able, lane, end = latest.able, latest.lane, latest.end
            speed, alike = able[0] if len(able) == 1 else _latest(able, starts, due_s)
            worker, start_s = alike[0], starts[alike[0]]
            for other in alike:
                if starts[other] > start_s:
                    worker, start_s = other, starts[other]
            begin, rows = _batch(lane, end, start_s, speed, self._parts)
            first_s, cost = lane.due[begin], speed.cost(rows)
            start_s = min(start_s, first_s) - cost.mean_s
            starts[worker] = start_s
            steps.append(Step(lane, begin, end, cost, first_s, worker, start_s))
            latest.before(begin)


def _able(lanes: Sequence[Due]) -> dict[Key, Able]:
    return {each.lane.key: each.able for each in lanes}


def _never(worker: int) -> Step:
    """Stands for what nobody can compute."""
    lane = Lane("", "", [Request(0, "", 0, 0.0)])
    return Step(lane, 0, 1, Cost(0.0, 0.0, 0.0), -math.inf, worker)


def _latest(able: Able, starts: Sequence[float], due_s: float) -> tuple[Speed, list[int]]:
    """The kind of which a worker may begin a batch latest that is due at ``due_s``."""

    def begin_s(one: tuple[Speed, list[int]]) -> float:
        speed, alike = one
        latest_s = max(starts[number] for number in alike)
        return min(due_s, latest_s) - speed.cost(speed.best).mean_s

    return max(able, key=begin_s)


def _batch(lane: Lane, end: int, start_s: float, speed: Speed, parts: int) -> tuple[int, int]:
    """Where the batch of ``lane`` begins that ends before ``end``, and how many rows it has.

    One that is due so much earlier than the others that it costs more time than a batch of its own is not
    in it, if there is a part of the rows without it.
    """
    due, sizes, best = lane.due, lane.rows, speed.best
    enough = max(1, best // parts)
    early_s = min(start_s, due[end - 1]) - speed.spare_s
    begin = end - 1
    rows = sizes[begin]
    first = lane.begin
    while begin > first:
        before = begin - 1
        more = rows + sizes[before]
        if more > best or (rows >= enough and due[before] < early_s):
            break
        begin = before
        rows = more
    return begin, rows
