"""A real ``rootserve-server`` process for tests: on free ports, ended and checked for leftovers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

PATIENCE_S = 100.0
FREE_PORTS = ("--port", "0", "--metrics-port", "0")
LARGE = [("grpc.max_receive_message_length", 2**27), ("grpc.max_send_message_length", 2**27)]


class ServerProcess:
    """Started on creation; :meth:`wait_ready` waits until all its models are warm.

    With ``credentials`` the channel speaks TLS; ``token`` is sent by :meth:`wait_ready` and
    :meth:`infer`. ``within`` is a command that becomes the server in other surroundings, and
    ``environment`` all variables that it has.
    """

    def __init__(
        self,
        *arguments: str,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        within: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        self.process = subprocess.Popen(
            [*within, sys.executable, "-m", "rootserve.server", *FREE_PORTS, *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.fullmatch(r"listening grpc=(\S+) metrics=(\S+)\n", line)
        if match is None:
            self.process.wait(PATIENCE_S)
            raise AssertionError(f"the server did not start: {line!r}\n{self._close()}")
        self.address, self.metrics_address = match.groups()
        if credentials:
            self.channel = grpc.secure_channel(self.address, credentials, LARGE)
        else:
            self.channel = grpc.insecure_channel(self.address, LARGE)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        workers = self.worker_pids()
        log = self.end(signal.SIGTERM)
        if error is None:
            assert self.process.returncode == 0, log
            assert "Traceback" not in log, log
            assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()], "a worker is left"

    def end(self, number: signal.Signals) -> str:
        """Send a signal if it still runs, wait for its end, close everything; gives its log."""
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            log = self._close()
        return log

    def _close(self) -> str:
        assert self.process.stdout is not None
        self.process.stdout.close()
        log = self.log()
        self._log.close()
        return log

    def log(self) -> str:
        """What it wrote to stderr so far."""
        # Not by reading on: the server writes at the same file's position.
        number = self._log.fileno()
        return os.pread(number, os.fstat(number).st_size, 0).decode()

    def wait_ready(self) -> Self:
        """Wait until every served model is ready."""
        wait_until(lambda: self._is_ready() or self._check_alive())
        return self

    def _is_ready(self) -> bool:
        request = oip.ServerReadyRequest()
        ready: bool = self.stub.ServerReady(request, metadata=self.metadata).ready
        return ready

    def _check_alive(self) -> bool:
        assert self.process.poll() is None, self.log()
        return False

    def worker_pids(self) -> list[int]:
        """Its worker processes."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return [int(child) for child in children.read_text().split()] if children.exists() else []

    def peak_kb(self) -> int:
        """The most memory that it held so far, without its workers'."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1])

    def infer(
        self, model: str, images: NDArray[np.generic], timeout_s: float = 30.0
    ) -> NDArray[np.float32]:
        """Logits of one request."""
        request = infer_request(model, images)
        return logits(self.stub.ModelInfer(request, timeout=timeout_s, metadata=self.metadata))


@contextmanager
def running_server(
    *arguments: str, credentials: grpc.ChannelCredentials | None = None, token: str | None = None
) -> Iterator[ServerProcess]:
    """A server that is ready."""
    with ServerProcess(*arguments, credentials=credentials, token=token) as server:
        yield server.wait_ready()


def wait_until(condition: object, patience_s: float = PATIENCE_S) -> None:
    """Wait until the callable ``condition`` is true."""
    assert callable(condition)
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not so within {patience_s} s"
        time.sleep(0.02)


def suspend(pid: int) -> None:
    """Stop a process, and wait until all of its threads have: on a busy machine one may go on for a while."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")

    def states() -> list[str]:
        return [
            (task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()
        ]

    wait_until(lambda: set(states()) == {"T"})


def infer_request(
    model: str, images: NDArray[np.generic], request_id: str = ""
) -> oip.ModelInferRequest:
    """A request for the logits of uint8 or float32 ``images`` [N, 3, H, W]."""
    request = oip.ModelInferRequest(model_name=model, id=request_id)
    datatype = "UINT8" if images.dtype == np.uint8 else "FP32"
    request.inputs.add(name="images", datatype=datatype, shape=images.shape)
    request.raw_input_contents.append(images.tobytes())
    return request


def logits(response: oip.ModelInferResponse) -> NDArray[np.float32]:
    """The first output of ``response``."""
    shape = tuple(response.outputs[0].shape)
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(shape)


def plain_images(rows: int, value: int = 0) -> NDArray[np.uint8]:
    """Images of one value; the fake engine's logit c of each is ``value`` + c."""
    return np.full((rows, 3, 32, 32), value, np.uint8)


def command_image(command: bytes) -> NDArray[np.uint8]:
    """An image that tells the fake engine to misbehave."""
    image = plain_images(1)
    image.reshape(-1)[: len(command)] = list(command)
    return image
