"""A fake server, an address where nobody listens, and the command line run in this process."""

import socket
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from rootserve.client.cli import main
from tests.integration.client.fake_rootserve import FakeRootserve


class Run(NamedTuple):
    code: int
    out: str
    err: str


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
