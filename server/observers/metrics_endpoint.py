"""Serves /metrics and /ready over HTTP, with a bound on what callers can cost the service."""

from __future__ import annotations

import gzip
import http.server
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 16
"""Connections that are answered at once; further ones wait to be accepted."""
IDLE_S = 5.0
"""A connection that neither sends nor takes anything for so long is closed."""
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

    def get(self, accept: str) -> tuple[str, bytes]:
        """The content type, OpenMetrics or Prometheus text as ``accept`` asks, and the page."""
        asked_s = time.monotonic()
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

    ``is_ready`` is asked for /ready, from such a thread. ``port`` is the one it listens on.

    Raises:
        OSError: if it cannot listen there.
    """

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, is_ready: Callable[[], bool]
    ) -> None:
        self.pages = Pages(registry)
        self.is_ready = is_ready
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._server = _Server(self, family, address)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # a caller that sends nothing must not hold up the end
    request_queue_size = 128

    def __init__(self, endpoint: MetricsEndpoint, family: int, address: Any) -> None:
        self.address_family = family
        self.endpoint = endpoint
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._free.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a caller of /metrics went away", exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = IDLE_S
    server: _Server

    def do_GET(self) -> None:
        """Answer."""
        match self.path.partition("?")[0]:
            case "/metrics":
                self._metrics()
            case "/ready":
                ready = self.server.endpoint.is_ready()
                status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
                self._text(status, "ready" if ready else "not ready")
            case _:
                self._text(HTTPStatus.NOT_FOUND, "there are /metrics and /ready")

    def _metrics(self) -> None:
        try:
            content_type, content = self.server.endpoint.pages.get(self.headers.get("Accept", ""))
        except Exception:  # noqa: BLE001 - whatever it is, the next scrape may succeed
            _log.exception("the metrics could not be collected")
            text = "the metrics could not be collected; the server's log tells why"
            self._text(HTTPStatus.INTERNAL_SERVER_ERROR, text)
            return
        headers = {"Content-Type": content_type}
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            content = gzip.compress(content, 1)
        self._send(HTTPStatus.OK, headers, content)

    def _text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, {"Content-Type": "text/plain; charset=utf-8"}, f"{text}\n".encode())

    def _send(self, status: HTTPStatus, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        _log.debug(format, *args)
