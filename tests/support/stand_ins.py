"""Stands in for systemctl and journalctl where there is no systemd: runs the commands of the shipped unit.

Called as ``stand_ins.py systemctl ARGUMENTS`` and ``stand_ins.py journalctl ARGUMENTS``, with STAND_INS
naming a folder of its own and FOLDERS, as JSON, the folders that take the places of the unit's.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.systemd_unit import unit_command, unit_environment

_STATE = Path(os.environ["STAND_INS"])
_PATIENCE_S = 100.0


def main(program: str, *arguments: str) -> int:
    """Do what the program of that name would do."""
    match program, arguments:
        case "systemctl", ("start", _):
            return _start()
        case "systemctl", ("stop", _):
            os.kill(int(_read("pid")), signal.SIGTERM)
            _wait_for("exited")
            return 0
        case "systemctl", ("show", "--property", name, *_):
            value = {"StatusText": "status", "MainPID": "pid"}[name]
            prefix = "" if "--value" in arguments else f"{name}="
            print(f"{prefix}{_read(value)}")
            return 0
        case "journalctl", _:
            print(_read("log"))
            return 0
        case "manage", ():
            return _manage()
    print(f"{program} {' '.join(arguments)}: there is no stand-in for this", file=sys.stderr)
    return 1


def _start() -> int:
    manager = [sys.executable, __file__, "manage"]
    # With no stream of its caller's, who would wait for its end.
    with (_STATE / "manager.log").open("w") as log:
        subprocess.Popen(manager, start_new_session=True, stdout=log, stderr=log)
    _wait_for("ready", "exited")
    return 0 if (_STATE / "ready").exists() else 1


def _manage() -> int:
    """Hold the socket, start the service, and note what it tells until it has ended."""
    address = _STATE / "notify"
    folders: Mapping[str, str] = json.loads(os.environ["FOLDERS"])
    environment = unit_environment(folders) | {"NOTIFY_SOCKET": str(address)}
    environment |= {"ROOTSERVE_PORT": "0", "ROOTSERVE_METRICS_PORT": "0"}
    environment |= {
        "ROOTSERVE_HANG_S": "100"
    }  # a worker that a page holds up is not to be replaced
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
        (_STATE / "log").open("a") as log,
    ):
        told.bind(str(address))
        told.settimeout(0.1)
        checked = subprocess.run(
            unit_command("ExecStartPre"), env=environment, stdout=log, check=False
        )
        if checked.returncode:
            _write("exited", "2")
            return 2
        service = subprocess.Popen(
            unit_command("ExecStart"),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        _write("pid", str(service.pid))
        assert service.stdout is not None
        _write("address", service.stdout.readline().partition("grpc=")[2].split()[0])
        while service.poll() is None:
            try:
                lines = told.recv(4096).decode().splitlines()
            except TimeoutError:
                continue
            for name, _, value in (line.partition("=") for line in lines):
                if name == "STATUS":
                    _write("status", value)
                elif name == "READY":
                    _write("ready", value)
        _write("exited", str(service.returncode))
        return service.returncode


def _wait_for(*names: str) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not any((_STATE / name).exists() for name in names):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"none of {names} after {_PATIENCE_S} s")
        time.sleep(0.05)


def _read(name: str) -> str:
    return (_STATE / name).read_text().rstrip("\n")


def _write(name: str, text: str) -> None:
    partial = _STATE / f"{name}.partial"
    partial.write_text(f"{text}\n")
    partial.replace(_STATE / name)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
