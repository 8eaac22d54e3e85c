"""Waits until servers are there and serve."""

import asyncio
import time

from rootserve.client.credentials import Connection
from rootserve.client.errors import ServerError, Unreachable
from rootserve.client.inference import AsyncClient
from rootserve.client.retry import RetryPolicy
from rootserve.client.tables import console
from rootserve.client.telling import telling, time_left

_PAUSE_S = 0.2
_TRY_S = 2.0
_SERVING = "SERVING"
# Codes with which a server that is starting may answer.
_NOT_YET = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})


async def wait_until_serving(connection: Connection, wait_s: float) -> None:
    """Wait so long at most until every server of the connection is SERVING.

    Raises:
        Unreachable: One cannot be reached by then.
        ServerError: One is not SERVING by then, or refuses to tell.
    """
    deadline_s = time.monotonic() + wait_s
    with telling(console(stderr=True), f"waiting for {connection.server}") as tell:
        for server in connection.server.split(","):
            while (failure := await _failure(server.strip(), connection)) is not None:
                if time.monotonic() >= deadline_s:
                    raise failure
                left_s = deadline_s - time.monotonic()
                tell(f"waiting for {server.strip()}, {time_left(left_s)} left at most")
                await asyncio.sleep(_PAUSE_S)


async def _failure(server: str, connection: Connection) -> Unreachable | ServerError | None:
    """Why the server does not serve yet; None if it does."""
    try:
        async with AsyncClient(
            server,
            credentials=connection.credentials,
            timeout_s=_TRY_S,
            connect_timeout_s=_TRY_S,
            retry=RetryPolicy(attempts=1),
        ) as client:
            state = await client.health()
    except Unreachable as error:
        return error
    except ServerError as error:
        if error.code not in _NOT_YET:
            raise
        return error
    if state == _SERVING:
        return None
    return ServerError("UNAVAILABLE", f"the server at {server} is {state}")
