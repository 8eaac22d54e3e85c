"""`rootserve-cluster envoy --run` on ports that are taken, and ended."""

import signal
import socket
import subprocess
import sys

import pytest

from tests.support.envoy import INSTALLED, MISSING, free_ports, running_envoy
from tests.support.server_process import PATIENCE_S

pytestmark = pytest.mark.skipif(not INSTALLED, reason=MISSING)


@pytest.mark.parametrize("option", ["--port", "--metrics-port", "--admin-port"])
def test_a_port_that_is_taken_is_told_before_anything_starts(option: str) -> None:
    ports = dict(zip(("--port", "--metrics-port", "--admin-port"), free_ports(3), strict=True))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[option] = taken.getsockname()[1]
        command = [sys.executable, "-m", "rootserve.cluster", "envoy", "--run"]
        command += ["--servers", "127.0.0.1:9"]
        command += [word for name, port in ports.items() for word in (name, str(port))]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    assert done.returncode == 2
    expected = f"{option}: 127.0.0.1:{ports[option]} is taken by another program"
    assert expected in done.stderr
    assert done.stdout == ""


def test_it_becomes_envoy_which_ends_when_it_is_told() -> None:
    with running_envoy(["127.0.0.1:9"], healthy=0) as envoy:
        envoy.process.send_signal(signal.SIGTERM)
        assert envoy.process.wait(PATIENCE_S) == 0
