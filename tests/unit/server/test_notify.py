"""What systemd is told, on a socket of the test's own."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootmodels.weights_info import PRETRAINED_DIR
from rootserve.server.models import Models, WorkerState
from rootserve.server.notify import Notifier
from rootserve.server.repository import Repository
from tests.support.held import hold

NAMES = ("nin-orig", "nin-root-4")


@pytest.fixture
def models() -> Models:
    found = Repository([PRETRAINED_DIR]).find_models()
    found.select(NAMES)
    found.workers["cpu-0"] = WorkerState()
    return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def told(manager: socket.socket) -> list[str]:
    lines = []
    while True:
        try:
            lines += manager.recv(4096).decode().splitlines()
        except BlockingIOError:
            return lines


def test_it_is_ready_when_no_model_loads_any_more(models: Models, manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "HOME": "/"}
    notifier = Notifier(models, environment)
    assert environment == {"HOME": "/"}, "workers must not speak for the service"
    notifier.models_changed()
    assert told(manager) == [], "nobody can ask it yet"
    notifier.listening()
    assert told(manager) == ["STATUS=serving 0 of 2 models, 2 loading"]
    hold(models, "cpu-0", "nin-orig")
    notifier.models_changed()
    notifier.models_changed()
    assert told(manager) == ["STATUS=serving 1 of 2 models, 1 loading"]
    card = models["nin-root-4"].card
    models.workers["cpu-0"].failed[card.name] = (card, "it is damaged")
    notifier.models_changed()
    assert told(manager) == ["READY=1", "STATUS=serving 1 of 2 models, 1 failed: nin-root-4"]
    hold(models, "cpu-0", *NAMES)
    notifier.models_changed()
    assert told(manager) == ["STATUS=serving 2 models"]
    notifier.stopping()
    hold(models, "cpu-0", "nin-orig")
    notifier.models_changed()
    assert told(manager) == ["STOPPING=1", "STATUS=finishing what was admitted"]


async def test_the_watchdog_is_told_only_of_the_process_it_watches(
    models: Models, manager: socket.socket
) -> None:
    address = manager.getsockname()
    watched = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid())}
    other = watched | {"WATCHDOG_PID": "1"}
    await Notifier(models, other).keep_alive()
    await Notifier(models, {"WATCHDOG_USEC": "1"}).keep_alive()
    assert told(manager) == []
    notifier = Notifier(models, dict(watched))
    beats = notifier.keep_alive()
    beats.send(None)
    beats.close()
    assert told(manager) == ["WATCHDOG=1"]


def test_an_abstract_socket_and_none_at_all(
    models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("")  # the kernel chooses an abstract name
        receiver.setblocking(False)
        name = receiver.getsockname().decode().replace("\0", "@", 1)
        Notifier(models, {"NOTIFY_SOCKET": name}).listening()
        assert told(receiver) == ["STATUS=serving 0 of 2 models, 2 loading"]
    Notifier(models, {}).listening()
    assert caplog.records == []
    Notifier(models, {"NOTIFY_SOCKET": "/nowhere"}).listening()
    assert "NOTIFY_SOCKET /nowhere: No such file or directory" in caplog.text
