"""Promised requests that the same variant would compute, in the same form."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection
from typing import final

from rootserve.server.core.queue import Request

Key = tuple[str, str]
"""What requests of a lane have in common: the variant that would compute them, and their form."""


@final
class Lane:
    """Promised requests that the same variant would compute, by deadline.

    They are those of ``requests`` from ``begin`` on; ``due`` and ``rows`` are theirs, in the same order. Once
    it ``is_shared`` it stays as it is, and one that has more or fewer of them is another one: so a layout
    need not have a list of requests for each batch, but can say of which of a lane it is, and what is left
    of a lane without the first of it is the same lists, read from further on.
    """

    __slots__ = (
        "begin",
        "due",
        "form",
        "is_shared",
        "key",
        "least_s",
        "requests",
        "rows",
        "variant",
    )

    def __init__(
        self,
        variant: str,
        form: str,
        requests: list[Request] | None = None,
        due: list[float] | None = None,
        rows: list[int] | None = None,
    ) -> None:
        """``due`` and ``rows`` follow from ``requests`` if they are not told."""
        self.variant, self.form = self.key = variant, form
        self.begin = 0
        self.requests: list[Request] = [] if requests is None else requests
        self.due: list[float] = [one.deadline_s for one in self.requests] if due is None else due
        self.rows: list[int] = [one.rows for one in self.requests] if rows is None else rows
        self.is_shared = False
        self.least_s = math.inf
        """What the first one takes alone, when it was looked at last."""

    def __len__(self) -> int:
        return len(self.due) - self.begin

    @property
    def first(self) -> Request:
        """The one that is due first."""
        return self.requests[self.begin]

    @property
    def all(self) -> list[Request]:
        """All of them."""
        return self.requests[self.begin :]

    @property
    def all_rows(self) -> int:
        """Rows of all of them."""
        return sum(self.rows[self.begin :])

    def has(self, request: Request) -> bool:
        """Whether ``request`` is one of them."""
        at = self._place(request)
        return at < len(self.requests) and self.requests[at].id == request.id

    def rows_before(self, due_s: float) -> int:
        """Rows of those that are due before ``due_s``."""
        return sum(self.rows[self.begin : bisect_left(self.due, due_s, self.begin)])

    def with_one(self, request: Request) -> Lane:
        """Another one that is the same with ``request``."""
        lane = self._copy()
        lane._insert(request)  # noqa: SLF001 - its own class
        return lane

    def added(self, request: Request) -> Lane:
        """The same with ``request``: itself, if it may be changed."""
        if self.is_shared:
            return self.with_one(request)
        self._insert(request)
        return self

    def without_one(self, request: Request) -> Lane:
        """Another one that is the same without ``request``, which is one of them."""
        lane = self._copy()
        at = lane._place(request)  # noqa: SLF001 - its own class
        del lane.requests[at], lane.due[at], lane.rows[at]
        return lane

    def without_first(self, count: int) -> Lane:
        """The same without the first ``count``."""
        if not count:
            return self
        self.is_shared = True
        lane = self._with(self.requests, self.due, self.rows)
        lane.begin, lane.is_shared = self.begin + count, True
        return lane

    def without(self, taken: Collection[int], until_s: float) -> Lane:
        """The same without those ``taken``, all of which are due by ``until_s``."""
        end = bisect_right(self.due, until_s, self.begin)
        early = [one for one in self.requests[self.begin : end] if one.id not in taken]
        if len(early) == end - self.begin:
            return self
        due = [one.deadline_s for one in early]
        rows = [one.rows for one in early]
        return self._with(early + self.requests[end:], due + self.due[end:], rows + self.rows[end:])

    def _copy(self) -> Lane:
        begin = self.begin
        return self._with(self.requests[begin:], self.due[begin:], self.rows[begin:])

    def _with(self, requests: list[Request], due: list[float], rows: list[int]) -> Lane:
        """The same but for its requests."""
        other = Lane(self.variant, self.form, requests, due, rows)
        other.least_s = self.least_s
        return other

    def _insert(self, request: Request) -> None:
        at = self._place(request)
        self.requests.insert(at, request)
        self.due.insert(at, request.deadline_s)
        self.rows.insert(at, request.rows)

    def _place(self, request: Request) -> int:
        """Where ``request`` is or would be: by deadline, and of the same deadline by number."""
        due, due_s = self.due, request.deadline_s
        at = bisect_left(due, due_s, self.begin)
        while at < len(due) and due[at] == due_s and self.requests[at].id < request.id:
            at += 1
        return at
