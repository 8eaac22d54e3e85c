"""Runs a client's commands in its environment, each with a bound of time."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clients.catalog import Client, Command

_REPOSITORY = Path(__file__).resolve().parents[2]
_MOST_S = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a client: None as ``fault`` if all it did was right."""

    client: Client
    version: str
    transcript: str
    fault: str | None


def missing(client: Client, environments: Path) -> str | None:
    """The program that ``client`` needs and that is neither in its environment nor on the path."""
    program = shlex.split(client.commands[0].line)[0]
    path = _variables(client, environments)["PATH"]
    own = environments / client.environment
    found = own.is_dir() if program in {"python", "node"} else shutil.which(program, path=path)
    return None if found else program


def run(client: Client, environments: Path, places: Mapping[str, str]) -> Outcome:
    """All commands of ``client``, up to the first that fails; ``places`` fill what stands in braces."""
    variables = _variables(client, environments)
    version = _call(client.version, variables)[1].split()
    transcript, fault = [], None
    for command in client.commands:
        line = command.line.format(**places)
        status, output = _call(line, variables)
        transcript += [f"$ {line}", *_shown(command, output)]
        fault = _fault(command, status, output)
        if fault is not None:
            transcript += output.splitlines()
            break
    told = version[-1].removeprefix("v") if version and version[-1][-1].isdigit() else "not told"
    return Outcome(client, told, "\n".join(transcript), fault)


def _variables(client: Client, environments: Path) -> dict[str, str]:
    own = environments / client.environment
    path = f"{own / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, "NODE_PATH": str(own / "node_modules"), "COLUMNS": "100"}


def _call(line: str, variables: Mapping[str, str]) -> tuple[int | None, str]:
    """Exit status, None if it took too long, and all that was printed."""
    line, _, source = line.partition(" < ")
    words = shlex.split(line)
    words[0] = shutil.which(words[0], path=variables["PATH"]) or words[0]
    with Path(source or os.devnull).open("rb") as given:
        try:
            done = subprocess.run(
                words,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=variables,
                cwd=_REPOSITORY,
                timeout=_MOST_S,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            return None, (late.stdout or b"").decode(errors="replace")
    return done.returncode, done.stdout.decode(errors="replace")


def _shown(command: Command, output: str) -> list[str]:
    return [line.rstrip() for line in output.splitlines() if re.search(command.shown, line)]


def _fault(command: Command, status: int | None, output: str) -> str | None:
    last = output.strip().splitlines()[-1:] or ["nothing was printed"]
    if status is None:
        return f"no end after {_MOST_S:.0f} s"
    if status:
        return f"exit status {status}: {last[0]}"
    if not re.search(command.expected, output):
        return f"{last[0]!r} came, expected {command.expected!r}"
    return None
