"""``python -m rootmodels``: what there is to be called, and signs of life of what takes long."""

import subprocess
import sys
import time
from importlib import import_module

import pytest

from rootmodels import signs as signs_module
from rootmodels.__main__ import COMMANDS
from rootmodels.signs import signs


def rootmodels(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rootmodels", *words],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def test_help_tells_every_command_and_what_it_does() -> None:
    done = rootmodels("--help")
    assert (done.returncode, done.stderr) == (0, "")
    told = dict(line.split(None, 1) for line in done.stdout.splitlines() if line.startswith("  "))
    assert told == {name: words for name, (_, words) in COMMANDS.items()}
    for module, _ in COMMANDS.values():
        assert callable(import_module(module).main)


def test_without_a_known_command_the_commands_are_told() -> None:
    for words, first in (((), "usage"), (("sugest",), "no command 'sugest'")):
        done = rootmodels(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(first)
        assert all(name in done.stderr for name in COMMANDS)


def test_what_takes_long_says_what_it_is_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signs_module, "FIRST_S", 0.0)
    monkeypatch.setattr(signs_module, "EVERY_S", 0.001)
    written = ""
    with signs("looking") as tell:
        while "still looking\n" not in written:
            written += capsys.readouterr().err
        tell("fitting")
        while "\nfitting\n" not in written:
            written += capsys.readouterr().err
    assert written.startswith("looking\nstill looking\n")
    capsys.readouterr()
    time.sleep(0.02)
    assert not capsys.readouterr().err  # nothing comes later


def test_what_takes_little_time_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with signs("a moment"):
        pass
    assert not capsys.readouterr().err
