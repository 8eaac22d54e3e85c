"""Serves /metrics and /ready over HTTP, with a bound on what callers can cost the service."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import io
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 128
"""Connections whose request has not come yet; beyond them, the one that has waited longest is closed."""
MAX_PAGES_WAITING = 256
"""Callers of /metrics that wait for their page; further ones are told to try again."""
MAX_REQUEST_BYTES = 1 << 14
REQUEST_S = 5.0
"""A connection whose request is not complete by then is closed, however it sends it."""
ANSWER_S = 30.0
"""The same of its answer: a page made and taken."""
_BACKLOG = 128
PAGE_INTERVAL_S = 0.05
"""Least time between two pages: making one takes the interpreter away from requests."""


@dataclass(frozen=True, slots=True)
class _Page:
    began_s: float
    content: bytes


class Pages:
    """Makes the pages, one at a time; who asks gets one that was begun after that, shared with others."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._pages: dict[str, _Page] = {}
        self._began_s = 0.0
        self.made = 0
        """How many were made."""

    def get(self, accept: str, asked_s: float) -> tuple[str, bytes]:
        """The content type, OpenMetrics or Prometheus text as ``accept`` asks, and the page.

        It is no older than ``asked_s``, by the monotonic clock.
        """
        encode, content_type = _encoder(accept)
        with self._lock:
            page = self._pages.get(content_type)
            if page is None or page.began_s < asked_s:
                time.sleep(max(0.0, self._began_s + PAGE_INTERVAL_S - time.monotonic()))
                self._began_s = time.monotonic()
                self.made += 1
                # One page is kept: the types a caller can ask for are many.
                page = _Page(self._began_s, encode(self._registry))
                self._pages = {content_type: page}
        return content_type, page.content


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no number
        return choose_encoder("")


class MetricsEndpoint:
    """A context in which the endpoint answers, from threads of its own.

    ``is_ready`` is asked for /ready, from such a thread. ``port`` is the one it listens on. One thread has
    all connections, so that one that is silent or slow costs a few bytes and keeps nobody waiting; another
    one makes the pages. Should the first one die, which it logs, it calls ``on_death``.

    Raises:
        OSError: if it cannot listen there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        is_ready: Callable[[], bool],
        on_death: Callable[[], object] = lambda: None,
    ) -> None:
        self._on_death = on_death
        self.pages = Pages(registry)
        self._is_ready = is_ready
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._open: dict[asyncio.StreamWriter, None] = {}
        """Those whose request has not come yet, the longest waiting first."""
        self._answering = 0
        self._maker = ThreadPoolExecutor(1, "metrics-page")
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed: it died
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except Exception:  # noqa: BLE001 - whatever it is, nobody answers for it any more
            _log.exception("the metrics endpoint failed: nobody answers on port %d", self.port)
            self._socket.close()
            self._on_death()
        # A page under way is not waited for.
        self._maker.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._connected, sock=self._socket, limit=MAX_REQUEST_BYTES, backlog=_BACKLOG
        )
        await self._stop.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = None
        if len(self._open) > MAX_CONNECTIONS:
            # Whoever has had the most time to ask makes room.
            longest = next(iter(self._open))
            del self._open[longest]
            longest.transport.abort()
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await reader.readuntil(b"\r\n\r\n")
            self._open.pop(writer, None)
            async with asyncio.timeout(ANSWER_S):
                writer.write(await self._answer(request))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            _log.debug("a caller of /metrics went away", exc_info=True)
        finally:
            self._open.pop(writer, None)
            # Without what it has not taken: a caller that does not read is not waited for.
            writer.transport.abort()

    async def _answer(self, request: bytes) -> bytes:
        """All bytes of the response to the head of a request."""
        line, _, rest = request.partition(b"\r\n")
        words = line.decode("latin-1").split()
        try:
            headers = http.client.parse_headers(io.BytesIO(rest))
        except http.client.HTTPException:
            return _text(HTTPStatus.BAD_REQUEST, "expected an HTTP request")
        if len(words) != 3:
            return _text(HTTPStatus.BAD_REQUEST, "expected an HTTP request")
        method, path, _ = words
        if method not in {"GET", "HEAD"}:
            return _text(HTTPStatus.NOT_IMPLEMENTED, "expected GET")
        match path.partition("?")[0]:
            case "/metrics":
                answer = await self._metrics(headers)
            case "/ready":
                ready = self._is_ready()
                status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
                answer = _text(status, "ready" if ready else "not ready")
            case _:
                answer = _text(HTTPStatus.NOT_FOUND, "there are /metrics and /ready")
        return answer if method == "GET" else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    async def _metrics(self, headers: http.client.HTTPMessage) -> bytes:
        if self._answering >= MAX_PAGES_WAITING:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "too many ask at once; try again")
        packed = "gzip" in headers.get("Accept-Encoding", "")
        accept = headers.get("Accept", "")
        self._answering += 1
        try:
            return await self._loop.run_in_executor(
                self._maker, self._page, accept, time.monotonic(), packed
            )
        except Exception:  # noqa: BLE001 - whatever it is, the next scrape may succeed
            _log.exception("the metrics could not be collected")
            text = "the metrics could not be collected; the server's log tells why"
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR, text)
        finally:
            self._answering -= 1

    def _page(self, accept: str, asked_s: float, packed: bool) -> bytes:
        content_type, content = self.pages.get(accept, asked_s)
        headers = {"Content-Type": content_type}
        if packed:
            headers["Content-Encoding"] = "gzip"
            content = gzip.compress(content, 1)
        return _response(HTTPStatus.OK, headers, content)


def _listen(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)


def _text(status: HTTPStatus, text: str) -> bytes:
    return _response(status, {"Content-Type": "text/plain; charset=utf-8"}, f"{text}\n".encode())


def _response(status: HTTPStatus, headers: dict[str, str], content: bytes) -> bytes:
    every = {**headers, "Content-Length": str(len(content)), "Connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in every.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n".encode("latin-1") + content
