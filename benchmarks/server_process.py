"""A server in a process of its own, of whatever kind, as long as it says where it listens."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

PREFIX = "listening grpc="
"""How the line begins in which a server tells its address."""

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
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith(PREFIX)), None)
        if line is None:
            raise RuntimeError(f"this did not start: {' '.join(command)}")
        address = line.removeprefix(PREFIX).split()[0]
        _wait_ready(address)
        yield Server(process.pid, address)
    finally:
        process.terminate()
        process.wait(_PATIENCE_S)


def _wait_ready(address: str) -> None:
    end_s = time.monotonic() + _PATIENCE_S
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = oip.ServerReadyRequest()
        while not stub.ServerReady(request, wait_for_ready=True, timeout=_PATIENCE_S).ready:
            if time.monotonic() > end_s:
                raise RuntimeError(f"{address} did not become ready")
            time.sleep(0.1)
