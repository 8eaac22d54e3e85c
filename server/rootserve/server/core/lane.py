"""Promised requests that the same variant would compute, in the same form."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection
from typing import final

from rootserve.server.core.queue import Request

Key = tuple[str, str]
"""What requests of a lane have in common: the variant that would compute them, and their form."""


@final
class Lane:
    """Promised requests that the same variant would compute, by deadline.

    Once it ``is_laid_out`` it stays as it is, and one that has more or fewer of them is another one: so a
    layout need not have a list of requests for each batch, but can say of which of a lane it is.
    """

    __slots__ = ("due", "form", "is_laid_out", "key", "least_s", "requests", "rows", "variant")

    def __init__(
        self,
        variant: str,
        form: str,
        requests: list[Request] | None = None,
        due: list[float] | None = None,
        rows: list[int] | None = None,
    ) -> None:
        """``due`` and ``rows`` are those of ``requests``, and follow from them if they are not told."""
        self.variant, self.form = self.key = variant, form
        self.requests: list[Request] = [] if requests is None else requests
        self.due: list[float] = [one.deadline_s for one in self.requests] if due is None else due
        self.rows: list[int] = [one.rows for one in self.requests] if rows is None else rows
        self.is_laid_out = False
        self.least_s = math.inf
        """What the first one takes alone, when it was looked at last."""

    def _place(self, request: Request) -> int:
        """Where ``request`` is or would be: by deadline, and of the same deadline by number."""
        due, due_s = self.due, request.deadline_s
        at = bisect_left(due, due_s)
        while at < len(due) and due[at] == due_s and self.requests[at].id < request.id:
            at += 1
        return at

    def with_one(self, request: Request) -> Lane:
        """Another one that is the same with ``request``."""
        lane = self._but(self.requests[:], self.due[:], self.rows[:])
        lane._insert(request)  # noqa: SLF001 - its own class
        return lane

    def added(self, request: Request) -> Lane:
        """The same with ``request``: itself, if it may be changed."""
        if self.is_laid_out:
            return self.with_one(request)
        self._insert(request)
        return self

    def _insert(self, request: Request) -> None:
        at = self._place(request)
        self.requests.insert(at, request)
        self.due.insert(at, request.deadline_s)
        self.rows.insert(at, request.rows)

    def without_one(self, request: Request) -> Lane:
        """The same without ``request``, which is one of them."""
        at = self._place(request)
        requests, due, rows = self.requests[:], self.due[:], self.rows[:]
        del requests[at], due[at], rows[at]
        return self._but(requests, due, rows)

    def leading(self, taken: Collection[int]) -> int:
        """How many of them come first that all are among those ``taken``."""
        count = 0
        for request in self.requests:
            if request.id not in taken:
                break
            count += 1
        return count

    def without_first(self, count: int) -> Lane:
        """The same without the first ``count``."""
        if not count:
            return self
        return self._but(self.requests[count:], self.due[count:], self.rows[count:])

    def without(self, taken: Collection[int]) -> Lane:
        """The same without those ``taken``, wherever they are."""
        requests = [request for request in self.requests if request.id not in taken]
        if len(requests) == len(self.requests):
            return self
        return self._but(requests, None, None)

    def _but(
        self, requests: list[Request], due: list[float] | None, rows: list[int] | None
    ) -> Lane:
        """The same but for its requests."""
        other = Lane(self.variant, self.form, requests, due, rows)
        other.least_s = self.least_s
        return other
