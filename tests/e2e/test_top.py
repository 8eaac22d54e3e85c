"""`rootserve top` against a real server: under load, restarted, unreachable, ended by Ctrl-C."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.server_process import ServerProcess, plain_images, running_server, wait_until

MODEL = "nin-root-16"
FAKE = ("--models", MODEL, "--engine", "fake", "--device", "cpu")
TOP = (sys.executable, "-m", "rootserve.client", "top")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server(*FAKE) as started:
        yield started


def top(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TOP, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


class Follower:
    """A `top --json` that runs on."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*TOP, "--json", "--interval", "0.1", *arguments], stdout=subprocess.PIPE, text=True
        )

    def until(self, key: str) -> dict[str, Any]:
        """The next line in which `key` has a value."""
        assert self.process.stdout is not None
        for text in self.process.stdout:
            line: dict[str, Any] = json.loads(text)
            if line.get(key):
                return line
        raise AssertionError(f"it ended before {key} came")

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def test_load_shows_up_in_the_figures_of_its_interval(server: ServerProcess) -> None:
    follower = Follower("--server", server.address)
    assert follower.until("interval_s")["models"][0]["requests_per_s"] == 0
    requests = 0.0
    rows = 0.0
    for _ in range(20):
        server.infer(MODEL, plain_images(3))
    while requests < 20 - 1e-6:
        line = follower.until("interval_s")
        (model,) = line["models"]
        requests += model["requests_per_s"] * line["interval_s"]
        rows += model["rows_per_s"] * line["interval_s"]
        if model["requests_per_s"]:
            assert 0 < model["p50_s"] <= model["p99_s"]
            assert model["batch_rows"] == 3
    assert requests == pytest.approx(20)
    assert rows == pytest.approx(60)
    (worker,) = line["workers"]
    assert (worker["worker"], worker["up"], worker["restarts"]) == ("cpu-0", True, 0)
    assert line["error"] is None
    assert follower.interrupt() == 0


def test_who_reads_no_further_ends_it(server: ServerProcess) -> None:
    command = (
        f"{sys.executable} -m client top --json --interval 0.1 --server {server.address} | head -1"
    )
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=60, check=False
    )
    assert json.loads(done.stdout)["server"] == server.address
    assert not done.stderr


def test_once_prints_a_plain_table_off_a_terminal(server: ServerProcess) -> None:
    host, _, port = server.metrics_address.rpartition(":")
    done = top(
        "--server", server.address, "--metrics", f"{host}:{port}", "--once", "--interval", "0.1"
    )
    assert done.returncode == 0, done.stderr
    assert f"rootserve {server.address}  serving" in done.stdout
    assert MODEL in done.stdout
    assert "\x1b" not in done.stdout


def test_on_a_terminal_it_draws_until_ctrl_c_and_leaves_the_screen_as_it_was(
    server: ServerProcess,
) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*TOP, "--server", server.address, "--interval", "0.1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    drawn = b""
    while b"over 0." not in drawn:
        drawn += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(ours, 65536):
            drawn += chunk
    except OSError:
        pass  # the other end is closed
    assert process.wait(30) == 0
    os.close(ours)
    assert b"\x1b[?1049h" in drawn
    assert b"\x1b[?1049l" in drawn
    assert b"Traceback" not in drawn


def test_a_server_that_goes_and_comes_back_is_followed() -> None:
    first = ServerProcess(*FAKE).wait_ready()
    follower = Follower("--server", first.address)
    assert follower.until("interval_s")["serving"]
    started_s = follower.until("interval_s")["started_s"]
    first.infer(MODEL, plain_images(1))
    first.end(signal.SIGTERM)
    assert "no metrics" in follower.until("error")["error"]
    # The same gRPC port, another port for the metrics.
    port = first.address.rpartition(":")[2]
    with running_server(*FAKE, "--port", port) as second:
        assert second.metrics_address != first.metrics_address
        line = follower.until("interval_s")
        assert line["started_s"] > started_s
        assert line["models"][0]["requests_per_s"] == 0
        assert follower.interrupt() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--server", "127.0.0.1:1"], 3, "no gRPC server answers at 127.0.0.1:1"),
        (["--metrics", "127.0.0.1:1"], 3, "no metrics at http://127.0.0.1:1/metrics"),
        (["--metrics", "nowhere"], 2, "'nowhere': expected HOST:PORT"),
        (["--interval", "0"], 2, "--interval"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(
    arguments: list[str], status: int, text: str
) -> None:
    done = top("--once", *arguments)
    assert done.returncode == status
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_not_of_metrics_is_told(server: ServerProcess) -> None:
    done = top("--once", "--metrics", server.address)
    assert done.returncode == 3
    assert f"no metrics at http://{server.address}/metrics" in done.stderr


def test_a_worker_that_dies_shows_up(server: ServerProcess) -> None:
    follower = Follower("--server", server.address)
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    while not follower.until("interval_s")["workers"][0]["restarts"]:
        pass
    wait_until(server.worker_pids)
    while not follower.until("interval_s")["workers"][0]["up"]:
        pass
    assert follower.interrupt() == 0


def test_several_servers_are_watched_together(server: ServerProcess) -> None:
    with running_server(*FAKE, "--untrained", "any") as second:
        addresses = (server.address, second.address, "127.0.0.1:1")
        done = top(*addresses, "--once", "--json", "--interval", "0.1")
        assert (done.returncode, done.stderr) == (0, "")
        first, other, gone = json.loads(done.stdout)["servers"]
        assert [first["error"], other["error"]] == [None, None]
        assert first["models"][0]["weights"] == other["models"][0]["weights"] != ""
        assert "no gRPC server answers" in gone["error"]
        table = top(*addresses, "--once", "--interval", "0.1").stdout
        assert "3 servers  2 serving" in table
        assert f"{MODEL}" in table
        assert "2/2" in table
    none = top("127.0.0.1:1", "127.0.0.1:2", "--once", "--interval", "0.1")
    assert none.returncode == 3
    assert "none of the servers can be read" in none.stderr
    both = top(*addresses, "--metrics", server.metrics_address)
    assert both.returncode == 2
    assert "--metrics: names one server's" in both.stderr
