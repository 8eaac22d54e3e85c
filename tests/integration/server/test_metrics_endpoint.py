"""The metrics endpoint: bounded when many ask, clear when it cannot answer, never held up."""

import contextlib
import gzip
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily

from rootserve.server.observers import metrics_endpoint
from rootserve.server.observers.metrics_endpoint import MAX_CONNECTIONS, MetricsEndpoint

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Slow:
    """A collector that waits for the test, or fails."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.fails = False

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self.go.wait(60)
        if self.fails:
            raise RuntimeError("told to fail")
        yield GaugeMetricFamily("slow", "help", value=1)


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("things", "help", registry=made).inc()
    return made


@pytest.fixture
def endpoint(registry: CollectorRegistry) -> Iterator[MetricsEndpoint]:
    with MetricsEndpoint("127.0.0.1", 0, registry, lambda: True) as made:
        yield made


def get(
    endpoint: MetricsEndpoint, path: str = "/metrics", **headers: str
) -> tuple[int, dict, bytes]:
    url = f"http://127.0.0.1:{endpoint.port}{path}"
    request = urllib.request.Request(
        url, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_both_formats_plain_and_compressed(endpoint: MetricsEndpoint) -> None:
    status, headers, page = get(endpoint)
    assert (status, headers["Content-Type"][:10]) == (200, "text/plain")
    assert b"things_total 1.0" in page
    _, headers, page = get(endpoint, accept=OPENMETRICS)
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert page.endswith(b"# EOF\n")
    _, headers, packed = get(endpoint, accept=OPENMETRICS, accept_encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed) == page


@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
def test_a_version_that_is_none_gets_the_plain_format(endpoint: MetricsEndpoint, kind: str) -> None:
    status, headers, page = get(endpoint, accept=f"{kind}; version=none")
    assert (status, headers["Content-Type"][:10]) == (200, "text/plain")
    assert b"things_total 1.0" in page


def test_ready_says_what_health_says(registry: CollectorRegistry) -> None:
    state = [False]
    with MetricsEndpoint("127.0.0.1", 0, registry, lambda: state[0]) as endpoint:
        assert get(endpoint, "/ready")[::2] == (503, b"not ready\n")
        state[0] = True
        assert get(endpoint, "/ready")[::2] == (200, b"ready\n")


def test_another_path_says_which_there_are(endpoint: MetricsEndpoint) -> None:
    assert get(endpoint, "/")[::2] == (404, b"there are /metrics and /ready\n")


def test_a_hundred_callers_at_once_share_a_few_pages(
    registry: CollectorRegistry, endpoint: MetricsEndpoint
) -> None:
    slow = Slow()
    registry.register(slow)
    slow.go.clear()
    others = set(threading.enumerate())
    with ThreadPoolExecutor(100, "caller") as callers:
        answers = [callers.submit(get, endpoint) for _ in range(100)]
        threads = [
            x for x in set(threading.enumerate()) - others if not x.name.startswith("caller")
        ]
        slow.go.set()
        assert {answer.result()[0] for answer in answers} == {200}
    assert len(threads) <= 1  # the maker of pages
    # Each page serves those who had asked when it was begun, and some come late.
    assert endpoint.pages.made <= 20


def test_a_page_is_never_older_than_the_question(
    registry: CollectorRegistry, endpoint: MetricsEndpoint
) -> None:
    counter = Counter("asked", "help", registry=registry)
    for count in range(1, 5):
        counter.inc()
        assert f"asked_total {count}.0".encode() in get(endpoint)[2]


def test_figures_that_cannot_be_collected_are_a_clear_error(
    registry: CollectorRegistry, endpoint: MetricsEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow()
    registry.register(slow)
    slow.fails = True
    with caplog.at_level(logging.ERROR):
        status, _, text = get(endpoint)
    assert (status, text) == (
        500,
        b"the metrics could not be collected; the server's log tells why\n",
    )
    assert "told to fail" in caplog.text
    slow.fails = False
    assert get(endpoint)[0] == 200


def connect(endpoint: MetricsEndpoint) -> socket.socket:
    return socket.create_connection(("127.0.0.1", endpoint.port), timeout=60)


def test_silent_and_slow_callers_keep_nobody_waiting_and_do_not_hold_up_the_end(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_endpoint, "REQUEST_S", 3600.0)
    with contextlib.ExitStack() as stack:
        with MetricsEndpoint("127.0.0.1", 0, registry, lambda: True) as endpoint:
            callers = [stack.enter_context(connect(endpoint)) for _ in range(76)]
            for slow in callers[:16]:
                slow.sendall(b"GET /metrics HTTP/1.1\r\nAccept: ")
            assert get(endpoint)[0] == 200
            for slow in callers[:16]:
                slow.sendall(b"t")
            assert get(endpoint, "/ready")[0] == 200
        # The end is not held up either; all are closed.
        for caller in callers:
            with contextlib.suppress(ConnectionError):
                assert caller.recv(1) == b""


def test_a_request_that_is_not_complete_in_time_is_closed_however_it_is_sent(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_endpoint, "REQUEST_S", 0.2)

    def send_slowly(connection: socket.socket) -> None:
        for _ in range(2000):
            connection.sendall(b"x")
            time.sleep(0.01)

    with (
        MetricsEndpoint("127.0.0.1", 0, registry, lambda: True) as endpoint,
        connect(endpoint) as slow,
        pytest.raises(ConnectionError),
    ):
        send_slowly(slow)


def test_beyond_a_number_of_silent_callers_the_oldest_is_closed(
    endpoint: MetricsEndpoint,
) -> None:
    with contextlib.ExitStack() as stack:
        oldest = stack.enter_context(connect(endpoint))
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(connect(endpoint))
        with contextlib.suppress(ConnectionError):
            assert oldest.recv(1) == b""
        assert get(endpoint)[0] == 200


def test_ready_does_not_wait_for_a_page_that_takes_long(
    registry: CollectorRegistry, endpoint: MetricsEndpoint
) -> None:
    slow = Slow()
    registry.register(slow)
    slow.go.clear()
    with ThreadPoolExecutor(1) as caller:
        page = caller.submit(get, endpoint)
        assert get(endpoint, "/ready")[0] == 200
        slow.go.set()
        assert page.result()[0] == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"501"),
        (b"GET /ready HTTP/1.0\r\n\r\n", b"200"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", b"404"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"400"),
    ],
)
def test_what_is_asked_otherwise_is_answered_by_its_status(
    endpoint: MetricsEndpoint, request_bytes: bytes, status: bytes
) -> None:
    with connect(endpoint) as connection:
        connection.sendall(request_bytes)
        with connection.makefile("rb") as answer:
            assert answer.readline().split()[1] == status


def test_a_request_without_an_end_is_closed(endpoint: MetricsEndpoint) -> None:
    with connect(endpoint) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /" + b"x" * 100_000)
        assert connection.recv(1) == b""


def test_a_port_that_is_taken_is_an_error(
    endpoint: MetricsEndpoint, registry: CollectorRegistry
) -> None:
    with pytest.raises(OSError, match="in use"):
        MetricsEndpoint("127.0.0.1", endpoint.port, registry, lambda: True)


def test_it_listens_on_ipv6_too(registry: CollectorRegistry) -> None:
    with (
        MetricsEndpoint("::1", 0, registry, lambda: True) as endpoint,
        urllib.request.urlopen(f"http://[::1]:{endpoint.port}/metrics") as answer,
    ):
        assert answer.status == 200


def test_an_endpoint_that_dies_says_so_where_it_is_heard(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: MetricsEndpoint) -> None:
        raise OSError("told to fail")

    monkeypatch.setattr(MetricsEndpoint, "_serve", fail)
    died = threading.Event()
    with MetricsEndpoint("127.0.0.1", 0, registry, lambda: True, died.set) as endpoint:
        assert died.wait(60)
        with pytest.raises(urllib.error.URLError):
            get(endpoint, "/ready")
    assert f"the metrics endpoint failed: nobody answers on port {endpoint.port}" in caplog.text
    assert "OSError: told to fail" in caplog.text
