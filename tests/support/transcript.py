"""Pages that show commands and what they print: every command is run, and the page has what came.

In a page's blocks of plain text, a line that begins with ``$`` is a command and what follows its output.
Figures, hashes, addresses and what a processor decides may differ (:func:`masked`).
``python -m tests.support.transcript PAGE`` writes the page anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootmodels.weights_info import weights_path
from tests.support.certificates import make_certificates

ROOT = Path(__file__).parents[2]
MODEL = "nin-root-16"
_PATIENCE_S = 120
_BLOCK = re.compile(r"```\n(.*?)```", re.DOTALL)
_MASKS = (
    (r"\b[0-9a-f]{12}\b", "HASH"),
    (r"\b(?:int8|bf16|fp32)\b", "PRECISION"),
    (r"ipv4:[\d.]+:\d+|127\.0\.0\.1:\d+", "ADDRESS"),
    (r"\d+(?:[.,]\d+)*", "N"),
    (r"N (?:µs|ms|s)\b", "TIME"),
    (r"[ \t]+", " "),
)


_SLOW = """\
#!/bin/bash
# Holds the worker up until one request is with it, and the others wait.
worker=$(pgrep -P "$(systemctl show --property MainPID --value rootserve)" | head -1)
ask="rootserve --tls-ca /etc/rootserve/ca.crt"
kill -STOP "$worker"
count=${1:-1}
for request in $(seq "$count"); do
    $ask infer --model nin-root-16 cat.png > "answer-$request.txt" 2>&1 &
done
waiting="\\"queued_rows\\": $((count - 1)), \\"in_flight_rows\\": 1,|\\"in_flight_rows\\": $count,"
until $ask top --once --json --interval 0.1 | grep -Eq "$waiting" || ! kill -0 $!; do :; done
sleep 1
kill -CONT "$worker"
wait
"""
"""Makes requests slow. On a CPU a worker has one batch at a time."""


class Machine:
    """A folder that stands for a machine on which the service is installed, its programs in PATH."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.folders = {
            place: str(folder / name)
            for place, name in {
                "/etc/rootserve": "etc",
                "/var/lib/rootserve": "lib",
                "/var/cache/rootserve": "cache",
                "/srv/incoming": "incoming",
            }.items()
        }
        self._state = folder / "state"
        programs = folder / "bin"
        for path in (*map(Path, self.folders.values()), self._state, programs):
            path.mkdir()
        for name in ("systemctl", "journalctl"):
            program = programs / name
            stand_in = ROOT / "tests" / "support" / "stand_ins.py"
            program.write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} {name} "$@"\n')
            program.chmod(0o755)
        self._environment = {
            "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(folder),
            "STAND_INS": str(self._state),
            "FOLDERS": json.dumps(self.folders),
            "ROOTSERVE_PORT": "0",
            "ROOTSERVE_METRICS_PORT": "0",
        }
        self._fill()

    def _fill(self) -> None:
        """What the pages begin with: a configuration, weights, new ones, and two certificates."""
        etc, lib = Path(self.folders["/etc/rootserve"]), Path(self.folders["/var/lib/rootserve"])
        incoming = Path(self.folders["/srv/incoming"])
        shutil.copy(ROOT / "examples" / "images" / "cat.png", self._folder)
        (etc / "rootserve.toml").write_text(
            self.here(
                'models = ["nin-root-16"]\n'
                'weights = "/var/lib/rootserve/weights"\n'
                'model_control = "explicit"\n'
                "slow_request_ms = 200\n"
                'tls_cert = "/etc/rootserve/tls.crt"\n'
                'tls_key = "/etc/rootserve/tls.key"\n'
            )
        )
        script = self._folder / "slow.sh"
        script.write_text(self.here(_SLOW))
        script.chmod(0o755)
        (lib / "weights").mkdir()
        shutil.copy(weights_path(MODEL), lib / "weights")
        for name, change in (("2", 0x01), ("3", None)):
            (incoming / name).mkdir()
            content = weights_path(MODEL).read_bytes()
            # Another last number is another file; half a file is none.
            changed = content[: len(content) // 2] if change is None else content[:-2] + b"\x01\x3c"
            weights_path(MODEL, incoming / name).write_bytes(changed)
        for name, folder in (("old", etc), ("new", incoming)):
            made = self._folder / name
            made.mkdir()
            certificates = make_certificates(made)
            for ours, theirs in (
                ("server.crt", "tls.crt"),
                ("server.key", "tls.key"),
                ("ca.crt",) * 2,
            ):
                shutil.copy(certificates.path(ours), folder / theirs)

    def here(self, text: str) -> str:
        """``text`` with this machine's folders."""
        for place, folder in self.folders.items():
            text = text.replace(place, folder)
        return text

    def run(self, command: str) -> str:
        """What a command prints, on both streams."""
        environment = dict(self._environment)
        address = self._state / "address"
        if address.exists():
            environment["ROOTSERVE_SERVER"] = address.read_text().strip()
        done = subprocess.run(
            ["/bin/bash", "-c", self.here(command)],
            cwd=self._folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        text = done.stdout
        for place, folder in self.folders.items():
            text = text.replace(folder, place)
        return text

    def close(self) -> None:
        """End the service, if a page has left it running."""
        pid = self._state / "pid"
        if pid.exists() and not (self._state / "exited").exists():
            os.kill(int(pid.read_text()), signal.SIGTERM)
            self.run("until [ -e $STAND_INS/exited ]; do sleep 0.1; done")


@contextmanager
def machine() -> Iterator[Machine]:
    """One in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="rootserve-machine-") as folder:
        made = Machine(Path(folder))
        try:
            yield made
        finally:
            made.close()


def play(page: str) -> str:
    """``page`` with what its commands print now."""
    with machine() as place:

        def played(block: re.Match[str]) -> str:
            lines = block[1].splitlines()
            if not lines or not lines[0].startswith("$ "):
                return block[0]
            told = []
            for command in _commands(lines):
                told.append("$ " + command)
                told += [line.rstrip() for line in place.run(command).splitlines()]
            return "```\n" + "\n".join(told) + "\n```"

        return _BLOCK.sub(played, page)


def _commands(lines: list[str]) -> list[str]:
    """The commands of a block; one that ends with a backslash goes on in the next line."""
    commands: list[str] = []
    goes_on = False
    for line in lines:
        if goes_on:
            commands[-1] += f"\n{line}"
        elif line.startswith("$ "):
            commands.append(line.removeprefix("$ "))
        else:
            continue
        goes_on = line.endswith("\\")
    return commands


def masked(text: str) -> str:
    """``text`` without what differs from run to run and from machine to machine."""
    for pattern, name in _MASKS:
        text = re.sub(pattern, name, text)
    return text


def main() -> int:
    """Write pages anew."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(play(path.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
