"""No process of the service reports to anyone, or leaves anything in the home directory.

OpenVINO's Python package would: see :mod:`rootserve.server.engines`.
"""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.confinement import IMPORT_PATH
from tests.support.server_process import running_server

ROOT = Path(__file__).parents[2]

# Python runs this at the start of each process: it writes down what would leave the machine. The service
# itself listens and is connected to in C, of which Python's events tell nothing.
AUDIT = """
import os, sys
def note(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        outward = args[0] != "127.0.0.1"  # where the service listens
    elif event == "socket.connect":
        outward = args[0].family.name != "AF_UNIX"
    else:
        outward = event in ("http.client.connect", "urllib.Request")
    if outward:
        with open(FILE, "a") as file:
            print(os.getpid(), event, args, file=file)
sys.addaudithook(note)
with open(FILE + ".started", "a") as file:
    print(os.getpid(), file=file)
"""


class Audit:
    """What processes started with this environment do that could be a report."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.home = folder / "home"
        self._notes = folder / "notes"
        self.home.mkdir()
        hook = folder / "hook"
        hook.mkdir()
        text = AUDIT.replace("FILE", repr(str(self._notes)))
        (hook / "sitecustomize.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", f"{hook}:{IMPORT_PATH}")
        monkeypatch.setenv("HOME", str(self.home))
        # OpenVINO itself does not report where one of these is set.
        for name in ("CI", "TF_BUILD", "JENKINS_URL"):
            monkeypatch.delenv(name, raising=False)

    def check(self) -> set[int]:
        """Gives the processes that there were."""
        assert not self._notes.exists(), self._notes.read_text()
        assert not list(self.home.rglob("*"))
        started = self._notes.with_name("notes.started").read_text()
        return set(map(int, started.split()))


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Audit:
    return Audit(monkeypatch, tmp_path)


def test_a_service_reports_to_nobody(audit: Audit) -> None:
    with running_server("--models", "nin-col-16", "--engine", "openvino") as server:
        workers = server.worker_pids()
        server.infer("nin-col-16", np.zeros((1, 3, 32, 32), np.uint8))
    assert workers
    assert audit.check() >= {server.process.pid, *workers}


@pytest.mark.parametrize(
    "module", ["rootserve.server.calibrate", "rootserve.server.analysis.process"]
)
def test_nor_does_what_else_imports_engines(audit: Audit, module: str) -> None:
    program = f"import {module}; import openvino; assert openvino.Core().available_devices"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)
    assert audit.check()


def test_every_import_of_openvino_comes_after_that_of_the_engines() -> None:
    """Their package does without the reporting one. In tests, conftest.py imports it first."""
    found = set()
    for folder in ("benchmarks", "client", "examples", "ops", "rootmodels", "scripts", "server"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                if any(name.partition(".")[0] == "openvino" for name in names):
                    found.add(path.relative_to(ROOT).parent.as_posix())
    assert found == {"server/rootserve/server/engines"}
