"""When a failed call is made again: as the server asks (google.rpc.RetryInfo), within its deadline."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from rootserve.client.errors import ServerError

T = TypeVar("T")

# Several callers that were refused together must not come back together.
_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after how long a call is made again.

    A refusal with RetryInfo (a full queue, RESOURCE_EXHAUSTED) waits as long as the server asks.
    UNAVAILABLE (a model is loading, the server restarts, the connection broke) without it waits
    `first_s`, then twice as long each time. Nothing else is tried again, and nothing beyond the
    call's own deadline. A deadline that the server cannot promise is told at once, with what it could:
    the caller chooses.

    Args:
        attempts: The most tries, the first one included; 1 is never again.
        first_s: Wait before the second try.
        longest_s: The most to wait before any.
    """

    attempts: int = 4
    first_s: float = 0.1
    longest_s: float = 5.0

    def wait_s(
        self, attempt: int, error: ServerError, left_s: float, chance: float
    ) -> float | None:
        """Seconds to wait before the next try; None if there is to be none.

        Args:
            attempt: Number of the try that failed, from 1.
            error: Its failure.
            left_s: Time until the deadline.
            chance: Random, 0..1: up to a fifth is added to the wait.
        """
        if attempt >= self.attempts or error.promise is not None:
            return None
        if error.retry_after_s is not None:
            wait_s = error.retry_after_s
            if wait_s > self.longest_s:
                return None
        elif error.code == "UNAVAILABLE":
            wait_s = min(self.first_s * 2.0 ** (attempt - 1), self.longest_s)
        else:
            return None
        wait_s *= 1 + _JITTER * chance
        return wait_s if wait_s < left_s else None


NO_RETRIES = RetryPolicy(attempts=1)
"""Every failure is told at once."""


class _Tries:
    """The tries of one call."""

    def __init__(self, policy: RetryPolicy, timeout_s: float) -> None:
        self._policy = policy
        self._deadline_s = time.monotonic() + timeout_s
        self._attempt = 0

    @property
    def left_s(self) -> float:
        """Time until the deadline."""
        return max(0.001, self._deadline_s - time.monotonic())

    def failed(self, error: ServerError) -> float:
        """Seconds to wait before the next try.

        Raises:
            ServerError: There is to be none.
        """
        self._attempt += 1
        wait_s = self._policy.wait_s(self._attempt, error, self.left_s, random.random())  # noqa: S311
        if wait_s is None:
            raise error
        return wait_s


async def retried(
    policy: RetryPolicy, timeout_s: float, call: Callable[[float], Awaitable[T]]
) -> T:
    """Make a call, again if the policy says so; it is given the seconds left for it.

    Raises:
        ServerError: Of the last try.
    """
    tries = _Tries(policy, timeout_s)
    while True:
        try:
            return await call(tries.left_s)
        except ServerError as error:
            wait_s = tries.failed(error)
        await asyncio.sleep(wait_s)
