"""A fake server, an address where nobody listens, and the command line run in this process."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from rootserve.client.cli import main
from tests.integration.client.fake_rootserve import FakeRootserve
from tests.support.server_process import wait_until


class Run(NamedTuple):
    code: int
    out: str
    err: str


def signalled(number: signal.Signals, when: Callable[[], bool], *arguments: object) -> Run:
    """The command line in a process of its own, which gets a signal as soon as ``when`` says so.

    This process must not get it: one that comes too late would end all tests.
    """
    words = [sys.executable, "-m", "rootserve.client", *map(str, arguments)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: when() or process.poll() is not None)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    return Run(process.returncode, out, err)


@pytest.fixture
def fake() -> Iterator[FakeRootserve]:
    with FakeRootserve() as server:
        yield server


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that stays taken and refuses connections."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unheard.getsockname()[1]}"


@pytest.fixture
def rootserve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Run]:
    def run(*arguments: object) -> Run:
        monkeypatch.setenv("GRPC_VERBOSITY", "NONE")  # or main would, for good
        monkeypatch.setattr(sys, "argv", ["rootserve", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return Run(int(exit_.value.code or 0), captured.out, captured.err)

    return run
