"""Servers of a cluster on ports that stay theirs: each can be killed, stopped and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.envoy import free_ports
from tests.support.server_process import PATIENCE_S, wait_until


@dataclass
class Node:
    """One server in a process group of its own, with its workers; :meth:`start` it."""

    port: int
    metrics_port: int
    log: Path
    arguments: Sequence[str]
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def address(self) -> str:
        """Where it listens for gRPC."""
        return f"127.0.0.1:{self.port}"

    def start(self, *more: str) -> None:
        """Start it, with ``more`` arguments."""
        command = [sys.executable, "-m", "rootserve.server", "--port", str(self.port)]
        command += ["--metrics-port", str(self.metrics_port), *self.arguments, *more]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )

    def is_serving(self) -> bool:
        """Whether its health says so."""
        with grpc.insecure_channel(self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def wait_serving(self) -> None:
        """Wait until it serves."""
        wait_until(lambda: self._running().poll() is None and self.is_serving())

    def signal(self, number: signal.Signals) -> None:
        """To the server and all its workers."""
        os.killpg(self._running().pid, number)

    def terminate(self) -> int:
        """Have it shut down; gives its exit status."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        return process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End it at once, with its workers, and wait until the kernel has let go of it."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):  # it has ended, and its workers with it
            self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "it was never started"
        return self.process


@contextmanager
def running_nodes(count: int, *arguments: str, started: int | None = None) -> Iterator[list[Node]]:
    """``count`` servers, of which the first ``started`` (all) serve; all are killed behind the block."""
    ports = free_ports(2 * count)
    with tempfile.TemporaryDirectory() as folder:
        nodes = [
            Node(ports[2 * one], ports[2 * one + 1], Path(folder) / f"node-{one}.log", arguments)
            for one in range(count)
        ]
        first = nodes[:started]
        try:
            for node in first:
                node.start()
            for node in first:
                node.wait_serving()
            yield nodes
        finally:
            for node in nodes:
                node.kill()
