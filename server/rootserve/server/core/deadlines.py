"""When requests that wait expire."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rootserve.server.core.queue import Request

_FORGOTTEN: Final = 64
"""So many of requests that wait no more, and as many as wait, are kept: looking for them costs more."""


class Deadlines:
    """Deadlines of requests, of which those that wait no more are forgotten when it is their turn."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, str]] = []
        """By deadline."""

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, request: Request) -> None:
        """``request`` waits, and expires at its deadline if it has one."""
        if request.deadline_s < math.inf:
            insort(self._entries, (request.deadline_s, request.id, request.model))

    def past(self, now: float) -> Iterator[tuple[int, str]]:
        """Take out the numbers and models of those whose deadline has come."""
        while self._entries and self._entries[0][0] <= now:
            _, request_id, model = self._entries.pop(0)
            yield request_id, model

    def left(self, requests: Sequence[Request]) -> None:
        """Those wait no more: the first of them, as far as they expire next, are forgotten at once."""
        entries, count = self._entries, 0
        for request in requests:
            if count == len(entries) or entries[count][1] != request.id:
                break
            count += 1
        del entries[:count]

    def keep(self, waits: Callable[[int, str], bool]) -> None:
        """Forget those that do not wait, told by their number and model."""
        self._entries = [entry for entry in self._entries if waits(entry[1], entry[2])]

    def next_s(self, waits: Callable[[int, str], bool], waiting: int) -> float:
        """When the next of those that wait, ``waiting`` of them, expires."""
        if len(self._entries) > 2 * waiting + _FORGOTTEN:
            self.keep(waits)
        for count, (deadline_s, request_id, model) in enumerate(self._entries):
            if waits(request_id, model):
                del self._entries[:count]
                return deadline_s
        self._entries.clear()
        return math.inf
