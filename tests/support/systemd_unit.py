"""The shipped unit of systemd, its own commands run without systemd, and what it would be told."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

UNIT = Path(__file__).parents[2] / "ops" / "systemd" / "rootserve.service"
INSTALLED = "/opt/rootserve/bin"


def unit_values(section: str, key: str) -> list[str]:
    """All values of a key, which may stand more than once."""
    values: list[str] = []
    found = ""
    for raw in UNIT.read_text().splitlines():
        line = raw.strip()
        if line.startswith("["):
            found = line.strip("[]")
        elif found == section and line.partition("=")[0] == key:
            values.append(line.partition("=")[2])
    return values


def unit_command(key: str) -> list[str]:
    """The command of ``ExecStart`` and the like, in the environment of the tests."""
    (command,) = unit_values("Service", key)
    program, *arguments = shlex.split(command)
    assert program.startswith(f"{INSTALLED}/"), command
    return [str(Path(sys.executable).with_name(Path(program).name)), *arguments]


def unit_environment(folders: Mapping[str, str]) -> dict[str, str]:
    """The variables of the unit, with ``folders`` in the place of the system's, and PATH."""
    variables = dict(value.split("=", 1) for value in unit_values("Service", "Environment"))
    for ours, theirs in folders.items():
        variables = {key: value.replace(ours, theirs) for key, value in variables.items()}
    return {"PATH": os.environ["PATH"], **variables}


class Manager:
    """What systemd is told; a socket in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(100)
        self.variables = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "2000000"}
        self.told: list[str] = []

    def wait_for(self, line: str) -> None:
        """Wait until it is told ``line``."""
        while line not in self.told:
            self.told += self._socket.recv(4096).decode().splitlines()

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


def run(command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
