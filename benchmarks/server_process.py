"""A server in a process of its own, of whatever kind, as long as it says where it listens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from rootserve.server.observers.metrics_state import process_usage

_PATIENCE_S = 60.0

SERVER_OPTIONS = ("--port", "0", "--metrics-port", "0")
SERVER_COMMAND = (sys.executable, "-m", "rootserve.server", *SERVER_OPTIONS)
"""What starts a service of ours on free ports; its options follow."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens, and where its metrics are, if it tells."""

    pid: int
    address: str
    metrics: str | None = None

    def cpu_s(self) -> float:
        """Processor time that it has used, without its children.

        Raises:
            RuntimeError: if it has ended.
        """
        return self._usage()[0]

    def resident_bytes(self) -> float:
        """Its resident memory, without that of its children.

        Raises:
            RuntimeError: if it has ended.
        """
        return self._usage()[1]

    def _usage(self) -> tuple[float, float]:
        usage = process_usage(self.pid)
        if usage is None:
            raise RuntimeError(f"the server {self.address} has ended")
        return usage

    def pause(self) -> None:
        """Stop it and its children: some keep a processor busy even while nobody asks them anything."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.killpg(self.pid, signal.SIGCONT)


@contextmanager
def serving(command: Sequence[str], log: Path | None = None) -> Iterator[Server]:
    """The server that ``command`` starts, once it is ready; ended behind the block. ``log`` gets its stderr.

    It tells its address in a line ``listening grpc=ADDRESS [metrics=ADDRESS]``; ``http=`` if it speaks that.

    Raises:
        RuntimeError: if it does not start, or is not ready in time.
    """
    with (log or Path(os.devnull)).open("a") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
    try:
        line = _listening_line(process)
        if line is None:
            raise RuntimeError(f"this did not start: {' '.join(command)}")
        told = dict(word.partition("=")[::2] for word in line.split()[1:])
        address = told.get("grpc") or told["http"]
        _wait_ready(address, _grpc_ready if "grpc" in told else _http_ready)
        yield Server(process.pid, address, told.get("metrics"))
    finally:
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a paused one does not hear
        try:
            process.wait(_PATIENCE_S)
        finally:
            # Some leave processes behind, which would compete with whatever is measured next.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _listening_line(process: subprocess.Popen[str]) -> str | None:
    """The line in which it tells its address; None if it ended without, or took too long and was killed."""
    assert process.stdout is not None
    impatience = threading.Timer(_PATIENCE_S, process.kill)
    impatience.start()
    try:
        return next((line for line in process.stdout if line.startswith("listening ")), None)
    finally:
        impatience.cancel()


def _wait_ready(address: str, is_ready: Callable[[str], bool]) -> None:
    end_s = time.monotonic() + _PATIENCE_S
    while not is_ready(address):
        if time.monotonic() > end_s:
            raise RuntimeError(f"{address} did not become ready")
        time.sleep(0.1)


def _grpc_ready(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = oip.ServerReadyRequest()
        return bool(stub.ServerReady(request, wait_for_ready=True, timeout=_PATIENCE_S).ready)


def _http_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/health", timeout=_PATIENCE_S) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False
