"""Becoming part of a Ray cluster, for a while: refused in bounded time where it cannot be."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootmodels.distributed import versions
from rootmodels.distributed.errors import NoRayError, UnreachableError, VersionsError

AUTO = "auto"
"""The cluster that RAY_ADDRESS names, or that runs on this machine."""

_CONNECT_S = 5.0
_JOIN_S = 45.0
_JOIN = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
_ANSWER_S = 90.0
"""A node that has not said by then what is installed on it is taken for one that cannot compute either."""

_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How every HTTP/2 connection begins, with settings that change nothing (RFC 9113, 3.4)."""

_SETTINGS_FRAME = 4

_ENVIRONMENT = {
    # Nothing of this project reports to anybody.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Under `uv run` Ray would pack the working directory and upload it to every node.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, by Ray's id, and what it has."""

    id: str
    address: str
    cpus: float
    gpus: float

    @property
    def name(self) -> str:
        """How it is called in messages: several nodes may have one address."""
        return f"{self.address} ({self.id[:8]})"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that was joined. ``ray`` is the module."""

    ray: Any
    address: str

    def nodes(self) -> list[Node]:
        """Those that are alive now."""
        return [
            Node(
                each["NodeID"],
                each["NodeManagerAddress"],
                each["Resources"].get("CPU", 0.0),
                each["Resources"].get("GPU", 0.0),
            )
            for each in self.ray.nodes()
            if each["Alive"]
        ]


@contextlib.contextmanager
def joined(address: str, folders: Sequence[Path] = ()) -> Iterator[Cluster]:
    """Be a driver of the cluster at ``address``, HOST:PORT or "auto".

    This machine is a node of it. Meanwhile nothing is written to ``sys.stdout``: Ray tells there of
    nodes that died, among what the caller prints.

    Raises:
        NoRayError: Ray is not installed.
        UnreachableError: Nothing answers there, or what answers is no cluster, or this is no node of it.
        VersionsError: A node has another version of Python, Ray, torch or this project than this machine,
            or does not see one of ``folders``, which exist here.
    """
    if importlib.util.find_spec("ray") is None:
        raise NoRayError(
            "Ray is not installed; expected its extra, as in pip install 'rootserve[ray]'"
        )
    os.environ.update(_ENVIRONMENT)
    if address != AUTO:
        _check_answers(address)
    elif told := os.environ.get("RAY_ADDRESS"):
        _check_answers(told)
    _check_joinable(address)
    import ray  # noqa: PLC0415 - takes a second, and nothing else needs it

    with contextlib.redirect_stdout(io.StringIO()):
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _cannot_join(address, error) from error
        try:
            cluster = Cluster(ray, ray.get_runtime_context().gcs_address)
            check_nodes(cluster, folders)
            yield cluster
        finally:
            ray.shutdown()


def _cannot_join(address: str, error: Exception) -> Exception:
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return VersionsError(f"the cluster at {address} has other versions: {text[:400]}")
    if address == AUTO and isinstance(error, ConnectionError):
        return UnreachableError(
            "auto: no Ray cluster runs on this machine, and RAY_ADDRESS is not set; expected HOST:PORT of "
            "one, or ray start before"
        )
    return UnreachableError(
        f"{address}: cannot be joined ({text[:300]}); expected a machine that is a node of it, as by "
        f"ray start --address={address}"
    )


def _check_answers(address: str) -> None:
    """Refuse, within seconds, an address at which Ray itself would try to connect for minutes.

    Raises:
        UnreachableError: saying what is there instead of a cluster.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16) or "/" in host:
        raise UnreachableError(
            f"{address!r} is no address of a cluster; expected auto or HOST:PORT"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S) as link:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            link.sendall(_HTTP2_PREFACE)
            answer = link.recv(9)
    except TimeoutError:
        raise UnreachableError(
            f"{address}: no answer within {_CONNECT_S:g} s; expected a Ray cluster there"
        ) from None
    except OSError as error:
        raise UnreachableError(
            f"{address}: {error.strerror or error}; expected a Ray cluster there"
        ) from None
    if len(answer) < 4 or answer[3] != _SETTINGS_FRAME:
        raise UnreachableError(f"{address}: what answers is no Ray cluster")


def _check_joinable(address: str) -> None:
    """Have another process join first: what cannot be joined may hang, and not in Python.

    Raises:
        UnreachableError: if that takes too long. Other failures come again, and are told, here.
    """
    command = [sys.executable, "-c", _JOIN, address]
    try:
        subprocess.run(  # noqa: S603 - this interpreter
            command, capture_output=True, timeout=_JOIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise UnreachableError(
            f"{address}: cannot be joined within {_JOIN_S:g} s; expected the address of a Ray cluster as its "
            "other machines know it, and this machine one of its nodes"
        ) from None


def check_nodes(cluster: Cluster, folders: Sequence[Path]) -> None:
    """Ask every node what is installed on it.

    Raises:
        VersionsError: naming the first node that differs, with both versions.
    """
    ray = cluster.ray
    ray.cloudpickle.register_pickle_by_value(versions)
    ask = ray.remote(versions.look)
    seen = tuple(str(folder.resolve()) for folder in folders)
    nodes = {}
    for node in cluster.nodes():
        if not node.cpus and not node.gpus:
            continue  # it computes nothing
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)
        options = {"num_cpus": 0, "max_retries": 1, "scheduling_strategy": here}
        nodes[ask.options(**options).remote(seen)] = node
    deadline = time.monotonic() + _ANSWER_S
    for answer, node in nodes.items():
        try:
            found, unseen = ray.get(answer, timeout=max(1.0, deadline - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            raise VersionsError(
                f"node {node.name} did not say within {_ANSWER_S:g} s what is installed on it"
            ) from None
        except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
            continue  # it died meanwhile: others do its work
        except ray.exceptions.RayError as error:
            text = " ".join(str(error).split())[:300]
            raise VersionsError(
                f"node {node.name} cannot say what is installed on it: {text}"
            ) from error
        check_versions(found, versions.installed(), f"node {node.name}")
        if unseen:
            raise VersionsError(
                f"node {node.name} does not see {unseen[0]}; expected a folder that all nodes share"
            )


def check_versions(found: versions.Versions, expected: versions.Versions, who: str) -> None:
    """Refuse versions that are not those of the machine that asks for the work.

    Raises:
        VersionsError: naming the first, and both versions.
    """
    for name, version in expected.items():
        if found.get(name) != version:
            what = "the code of rootserve" if name == "sources" else name
            raise VersionsError(
                f"{who} has {what} {found.get(name)}, the machine that asks has {version}; expected the same "
                "on all"
            )
