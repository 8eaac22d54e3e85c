"""Where the figures come from: the server's /metrics, found through its gRPC port unless it is named."""

import asyncio
import http.client
import time

from rootserve.client.address import Address, parse_address
from rootserve.client.credentials import Connection
from rootserve.client.errors import MalformedAnswer, RootserveError, Unreachable
from rootserve.client.inference import AsyncClient
from rootserve.client.top.sample import Sample, read_sample

TIMEOUT_S = 5.0
_LONGEST = 16 * 2**20


class Source:
    """Reads a server's metrics, again and again.

    Args:
        connection: How to reach the server by gRPC.
        metrics: HOST:PORT of its metrics; None asks the server for the port, and again after it failed
            to answer, for a restarted server may listen elsewhere.
    """

    def __init__(self, connection: Connection, metrics: str | None) -> None:
        self._connection = connection
        self._given = None if metrics is None else parse_address(metrics)
        self._found: Address | None = None

    def read(self) -> Sample:
        """Read the metrics once.

        Raises:
            InputError: The server's address is none.
            Unreachable: Nobody answers.
            ServerError: The server does not tell the port.
            MalformedAnswer: What answers is not rootserve-server.
        """
        if self._given is not None:
            return fetch(self._given)
        if self._found is None:
            self._found = asyncio.run(self._ask())
        try:
            return fetch(self._found)
        except RootserveError as error:
            found, self._found = self._found, None
            raise type(error)(
                f"{error} (the server says that they are on port {found.port})"
            ) from error

    async def _ask(self) -> Address:
        connection = self._connection
        async with AsyncClient(
            connection.server,
            credentials=connection.credentials,
            timeout_s=TIMEOUT_S,
            connect_timeout_s=TIMEOUT_S,
        ) as client:
            info = await client.server_info()
        if not info.metrics_port:
            raise MalformedAnswer(
                "the server does not tell where its metrics are: give --metrics HOST:PORT"
            )
        return Address(client.address.host, info.metrics_port)


def fetch(address: Address) -> Sample:
    """GET /metrics at `address`.

    Raises:
        Unreachable: Nobody answers, or not in time.
        MalformedAnswer: What answers is not rootserve-server.
    """
    # Without a proxy: http.client knows none.
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        answer = connection.getresponse()
        content = answer.read(_LONGEST + 1)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreachable(f"no metrics at http://{address}/metrics: {reason}") from error
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK or len(content) > _LONGEST:
        raise MalformedAnswer(
            f"http://{address}/metrics answers {answer.status} {answer.reason}, {len(content):,} bytes; "
            "expected the metrics of rootserve-server"
        )
    try:
        return read_sample(content.decode(errors="replace"), time.monotonic())
    except MalformedAnswer as error:
        raise MalformedAnswer(f"http://{address}/metrics: {error}") from error
