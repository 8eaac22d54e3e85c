"""A server in a process of its own, of whatever kind, as long as it says where it listens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus

import grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

PREFIX = "listening grpc="
"""How the line begins in which a server tells its address; one that speaks HTTP has http."""

_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    pid: int
    address: str


@contextmanager
def serving(command: Sequence[str]) -> Iterator[Server]:
    """The server that ``command`` starts, once it says that it is ready; ended behind the block.

    Raises:
        RuntimeError: if it does not start, or is not ready in time.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        told = (re.match(r"listening (grpc|http)=(\S+)", line) for line in process.stdout)
        match = next((match for match in told if match), None)
        if match is None:
            raise RuntimeError(f"this did not start: {' '.join(command)}")
        protocol, address = match.groups()
        _wait_ready(address, _grpc_ready if protocol == "grpc" else _http_ready)
        yield Server(process.pid, address)
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        finally:
            # Some leave processes behind, which would compete with whatever is measured next.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


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
