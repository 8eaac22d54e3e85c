"""`rootserve top` where something other than rootserve-server's metrics answers, or nothing."""

import http.server
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.integration.client.fake_rootserve import FakeRootserve

Rootserve = Callable[..., tuple[int, str, str]]


class OtherServer(http.server.BaseHTTPRequestHandler):
    """Has metrics, of something else; and other pages not."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(b"# TYPE up gauge\nup 1\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), OtherServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_older_server_does_not_tell_the_port(rootserve: Rootserve, fake: FakeRootserve) -> None:
    code, out, err = rootserve("top", "--once", "--server", fake.address)
    assert (code, out) == (3, "")
    assert err == (
        "rootserve: the server does not tell where its metrics are: give --metrics HOST:PORT\n"
    )


def test_metrics_of_something_else_are_not_taken_for_a_server(
    rootserve: Rootserve, other: str
) -> None:
    code, out, err = rootserve("top", "--once", "--metrics", other)
    assert (code, out) == (3, "")
    assert err == (
        f"rootserve: http://{other}/metrics: its metrics are not those of rootserve-server\n"
    )


def test_nobody_has_metrics(rootserve: Rootserve, nobody: str) -> None:
    code, _, err = rootserve("top", "--once", "--metrics", nobody)
    assert code == 3
    assert err == f"rootserve: no metrics at http://{nobody}/metrics: Connection refused\n"
