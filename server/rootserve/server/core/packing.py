"""Lays out what is due in batches, as late as possible: from the last deadline back.

Each batch is of the fastest variant that its requests may be computed by, on whichever worker may begin it
latest. What was laid out is remembered: a newcomer, or one that is taken, changes nothing of the batches
whose requests are all due later, and from there on the layout is continued.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Final, final

from rootserve.server.core.layout import Layout, Line, Part, Step
from rootserve.server.core.queue import Request
from rootserve.server.core.speeds import Cost, Speed

_NEVER_S: Final = -math.inf
NEVER: Final = Step(-math.inf, Cost(0.0, 0.0, 0.0), Part("", "", (Request(0, "", 0, 0.0),)))
"""Stands for what nobody can compute."""

Key = tuple[str, str]
"""What requests of a lane have in common: the variant that would compute them, and their form."""


class Lane:
    """Promised requests that the same variant would compute, by deadline."""

    __slots__ = ("_sums", "due", "form", "key", "least_s", "requests", "rows", "variant")

    def __init__(self, variant: str, form: str) -> None:
        self.variant, self.form = self.key = variant, form
        self.due: list[float] = []
        self.requests: list[Request] = []
        self.rows: list[int] = []
        self.least_s = math.inf
        """What the first one takes alone, when it was looked at last."""
        self._sums: list[int] | None = None

    def _place(self, request: Request) -> int:
        """Where ``request`` is or would be: by deadline, and of the same deadline by number."""
        due, due_s = self.due, request.deadline_s
        at = bisect_left(due, due_s)
        while at < len(due) and due[at] == due_s and self.requests[at].id < request.id:
            at += 1
        return at

    def add(self, request: Request) -> None:
        """``request`` is one of them."""
        at = self._place(request)
        self.due.insert(at, request.deadline_s)
        self.requests.insert(at, request)
        self.rows.insert(at, request.rows)
        self._sums = None

    def remove(self, request: Request) -> None:
        """``request``, which was one of them, no longer is."""
        at = self._place(request)
        del self.due[at], self.requests[at], self.rows[at]
        self._sums = None

    def sums(self) -> list[int]:
        """Rows up to each request and up to the end."""
        if self._sums is None:
            self._sums = list(accumulate(self.rows, initial=0))
        return self._sums

    def with_one(self, request: Request) -> Lane:
        """The same with ``request``, to be laid out."""
        more = Lane(self.variant, self.form)
        more.due, more.requests, more.rows = self.due[:], self.requests[:], self.rows[:]
        more.add(request)
        return more

    def without(self, taken: Collection[int], count: int) -> Lane:
        """The same without those ``taken``, of which it has so many, to be laid out."""
        if not count:
            return self
        rest = Lane(self.variant, self.form)
        rest.least_s = self.least_s
        requests = self.requests
        if all(request.id in taken for request in requests[:count]):  # as mostly
            rest.due, rest.requests = self.due[count:], requests[count:]
            rest.rows = self.rows[count:]
        else:
            rest.requests = [request for request in requests if request.id not in taken]
            rest.due = [request.deadline_s for request in rest.requests]
            rest.rows = [request.rows for request in rest.requests]
        return rest


Able = list[tuple[Speed, list[int]]]
"""Who may compute a lane: how fast kinds of workers are, and which ones they are, by number."""


@final
class Due:
    """A lane that is laid out, and who may compute it."""

    __slots__ = ("able", "lane")

    def __init__(self, lane: Lane, able: Able) -> None:
        self.lane, self.able = lane, able


_Packed = tuple[Key, int, int, float, Step]
"""A batch that was laid out: key of its lane; with the last but how many of it the batch begins; which worker
computes it, and when that one begins with it at the latest, if all take the mean; the batch itself."""


class Packing:
    """Layouts in batches that have at least one of so many ``parts`` of the rows they had best have.

    If there are as many.
    """

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._packed: list[_Packed] = []
        self._layout: Layout | None = None
        self._able: dict[Key, Able] = {}
        self._changed_s = -math.inf

    def changed(self, due_s: float) -> None:
        """What is to be laid out is no longer the same; nothing that is due later than that was changed."""
        self._changed_s = max(self._changed_s, due_s)

    def layout(self, lanes: Sequence[Due], workers: int) -> Layout:
        """All that is due, laid out for so many ``workers``."""
        if (
            self._layout is not None
            and self._changed_s == -math.inf
            and workers == len(self._layout.lines)
            and self._able == {each.lane.key: each.able for each in lanes}
        ):
            return self._layout
        return self.layout_without(lanes, workers, -math.inf)

    def layout_without(self, lanes: Sequence[Due], workers: int, taken_s: float) -> Layout:
        """The ``lanes`` that are left of all that is due without some, up to ``taken_s``."""
        packed = self._unchanged(lanes, workers, taken_s)
        self._packed = self._go_on(packed, lanes, workers)
        self._able = {each.lane.key: each.able for each in lanes}
        self._changed_s = taken_s
        self._layout = _layout_of(self._packed, workers)
        return self._layout

    def layout_with_one(self, lanes: Sequence[Due], workers: int, due_s: float) -> Layout:
        """The ``lanes`` of all that is due and of one more, due at ``due_s``, which may never be."""
        packed = self._unchanged(lanes, workers, due_s)
        return _layout_of(self._go_on(packed, lanes, workers), workers)

    def _unchanged(self, lanes: Sequence[Due], workers: int, changed_s: float) -> list[_Packed]:
        """The first batches laid out last that are the same, if what is due up to ``changed_s`` is not.

        They are if all in them is due later, and so is the request before them, which was too much for them.
        """
        if self._layout is None or workers != len(self._layout.lines):
            return []
        changed_s = max(changed_s, self._changed_s)
        due = {}
        for each in lanes:
            key = each.lane.key
            due[key] = each.lane.due
            if self._able.get(key, each.able) != each.able:
                return []
        for count, (key, behind, _, _, step) in enumerate(self._packed):
            if step.due_s <= changed_s:
                return self._packed[:count]
            begin = len(due[key]) - behind
            if begin and due[key][begin - 1] <= changed_s:
                return self._packed[:count]
        return self._packed[:]

    def _go_on(self, packed: list[_Packed], lanes: Sequence[Due], workers: int) -> list[_Packed]:
        """All of ``lanes`` laid out, beginning with what is ``packed`` already."""
        if not all(each.able for each in lanes):
            return [(("", ""), 0, worker, 0.0, NEVER) for worker in range(workers)]
        starts = [math.inf] * workers
        behind = {each.lane.key: 0 for each in lanes}
        for key, begins, worker, start_s, _ in packed:
            starts[worker] = start_s
            behind[key] = begins
        ends = [len(each.lane.due) - behind[each.lane.key] for each in lanes]
        last = [
            each.lane.due[end - 1] if end else -math.inf
            for each, end in zip(lanes, ends, strict=True)
        ]
        while last and (due_s := max(last)) > _NEVER_S:
            number = last.index(due_s)
            lane, able, end = lanes[number].lane, lanes[number].able, ends[number]
            speed, alike = able[0] if len(able) == 1 else _latest(able, starts, due_s)
            worker = alike[0]
            for other in alike:
                if starts[other] > starts[worker]:
                    worker = other
            due = lane.due
            begin, rows = _batch(due, lane.sums(), end, starts[worker], speed, self._parts)
            first_s, cost = due[begin], speed.cost(rows)
            start_s = starts[worker] = min(starts[worker], first_s) - cost.mean_s
            step = Step(first_s, cost, Part(lane.variant, lane.form, lane.requests[begin:end]))
            packed.append((lane.key, len(due) - begin, worker, start_s, step))
            ends[number] = begin
            last[number] = due[begin - 1] if begin else -math.inf
        return packed


def _layout_of(packed: Sequence[_Packed], workers: int) -> Layout:
    lines: list[Line] = [[] for _ in range(workers)]
    for _, _, worker, _, step in packed:
        lines[worker].append(step)
    return Layout(lines)


def _latest(
    able: Sequence[tuple[Speed, list[int]]], starts: Sequence[float], due_s: float
) -> tuple[Speed, list[int]]:
    """The kind of which a worker may begin a batch latest that is due at ``due_s``."""

    def begin_s(one: tuple[Speed, list[int]]) -> float:
        speed, alike = one
        latest_s = max(starts[number] for number in alike)
        return min(due_s, latest_s) - speed.cost(speed.best).mean_s

    return max(able, key=begin_s)


def _batch(
    due: Sequence[float], sums: Sequence[int], end: int, start_s: float, speed: Speed, parts: int
) -> tuple[int, int]:
    """Where the batch begins that ends before ``end``, and how many rows it has.

    ``due`` and ``sums`` are of its lane. One that is due so much earlier than the others that it costs more
    time than a batch of its own is not among them, if there is a part of the rows without it.
    """
    all_rows, best = sums[end], speed.best
    begin = bisect_left(sums, all_rows - best, 0, end - 1)
    early_s = min(start_s, due[end - 1]) - speed.spare_s
    if due[begin] < early_s:
        enough = max(1, best // parts)
        latest = bisect_left(sums, all_rows - enough + 1, begin, end) - 1
        later = bisect_left(due, early_s, begin, end - 1)
        begin = max(begin, min(later, latest))
    return begin, all_rows - sums[begin]
