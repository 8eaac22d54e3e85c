"""A Ray cluster of several nodes on this machine, on the loopback: started and ended by a process of its own.

    python -m tests.support.ray_nodes NODES

Says its address in a line, then obeys lines: ``kill`` ends a node that computes something (SIGKILL, with
all its processes) and says which it was; ``add PATH`` starts a node that looks for packages in PATH first;
``remove`` ends that one; ``nodes`` says how many there are. Ends with its input.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent.parent
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""On those systems Ray keeps to the loopback; else it takes the machine's own address."""

_STORE_BYTES = 80 * 2**20
_BUSY_S = 60.0


@dataclass(frozen=True, slots=True)
class Nodes:
    """The cluster, as a test sees it."""

    address: str
    environment: dict[str, str]
    """For commands that are to find it with --ray auto."""
    _input: IO[str]
    _output: IO[str]

    def ask(self, line: str) -> str:
        """What it says to ``line``."""
        self._input.write(f"{line}\n")
        self._input.flush()
        return _next_line(self._output)


@contextmanager
def ray_nodes(count: int) -> Iterator[Nodes]:
    """A cluster of ``count`` nodes with a processor each; one of them is the head."""
    # Not the folder of the tests: names of sockets may have 107 bytes.
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        own = {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
        environment = {**os.environ, **_LOOPBACK, **own}
        command = [sys.executable, "-m", "tests.support.ray_nodes", str(count)]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = _next_line(process.stdout)
            yield Nodes(address, environment, process.stdin, process.stdout)
        finally:
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()


def _next_line(output: IO[str]) -> str:
    """The next line that is for the test: Ray writes others."""
    for line in output:
        if line.startswith(">"):
            return line[1:].strip()
    raise AssertionError("the cluster has ended")


def _say(text: str) -> None:
    print(f">{text}", flush=True)


def _serve(count: int) -> None:
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - tests import this file

    own: dict[str, Any] = {
        "num_cpus": 1,
        "object_store_memory": _STORE_BYTES,
        "node_ip_address": "127.0.0.1",
    }
    (Path(os.environ["RAY_TMPDIR"]) / "ray").mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={**own, "include_dashboard": False})
    others = [cluster.add_node(wait=False, **own) for _ in range(count - 1)]
    cluster.wait_for_nodes()
    _say(cluster.address)
    strange = None
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "kill":
            node = _busy(others)
            others.remove(node)
            cluster.remove_node(node, allow_graceful=False)
            _say(node.unique_id)
        elif word == "add":
            strange = cluster.add_node(env_vars={"PYTHONPATH": rest}, **own)
            _say(strange.unique_id)
        elif word == "remove":
            cluster.remove_node(strange)
            _say("removed")
        else:
            _say(str(1 + len(others)))
    cluster.shutdown()


def _busy(nodes: list[Any]) -> Any:
    """One of ``nodes`` on which a task runs: a process of it has the task's name."""
    deadline = time.monotonic() + _BUSY_S
    while time.monotonic() < deadline:
        for node in nodes:
            raylet = node.all_processes["raylet"][0].process.pid
            if any("_as_asked" in name for name in _children(raylet)):
                return node
        time.sleep(0.05)
    raise AssertionError("no node computes anything")


def _children(parent: int) -> Iterator[str]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                yield (status.parent / "cmdline").read_text()
        except OSError:
            continue  # it has ended


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
