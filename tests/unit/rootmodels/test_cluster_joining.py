"""Addresses of clusters, versions of nodes, and nodes that die, without a cluster."""

import importlib.util
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rootmodels.distributed import joining, versions
from rootmodels.distributed.errors import (
    ClusterError,
    ClusterLostError,
    NoRayError,
    UnreachableError,
    VersionsError,
)
from rootmodels.distributed.joining import Cluster, check_versions, joined
from rootmodels.distributed.tasks import MOST_CRASHES, Failure, Needs, OnCluster


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """A port of the loopback that answers so, or not at all; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            link, _ = server.accept()
            with link:
                if answer is not None:
                    link.recv(100)
                    link.sendall(answer)
                done.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            done.set()
            thread.join()


def refusal(address: str) -> str:
    with pytest.raises(UnreachableError) as caught, joined(address):
        pass
    return str(caught.value)


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":7", "host:0", "host:70000", "ray://h:1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    assert "is no address of a cluster; expected auto or HOST:PORT" in refusal(address)


def test_where_nothing_listens_that_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    assert refusal(address) == f"{address}: Connection refused; expected a Ray cluster there"


def test_what_answers_in_other_words_is_no_cluster() -> None:
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        assert refusal(address) == f"{address}: what answers is no Ray cluster"


def test_what_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_CONNECT_S", 0.1)
    with listening(None) as address:
        assert (
            refusal(address) == f"{address}: no answer within 0.1 s; expected a Ray cluster there"
        )


def test_what_cannot_be_joined_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another program speaks HTTP/2, or a cluster has stopped."""
    monkeypatch.setattr(joining, "_JOIN", "import time; time.sleep(60)")
    monkeypatch.setattr(joining, "_JOIN_S", 0.5)
    with listening(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as address:
        assert f"{address}: cannot be joined within 0.5 s" in refusal(address)


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NoRayError, match=r"pip install 'rootserve\[ray\]'"), joined("auto"):
        pass


def test_other_versions_are_refused_with_both() -> None:
    own = versions.installed()
    check_versions(dict(own), own, "node a")
    with pytest.raises(VersionsError, match=r"node a has torch 1\.0, the machine that asks has"):
        check_versions(own | {"torch": "1.0"}, own, "node a")
    with pytest.raises(VersionsError, match="node a has the code of rootserve other, the machine"):
        check_versions(own | {"sources": "other"}, own, "node a")


def test_a_node_without_this_project_can_still_say_so(tmp_path: Path) -> None:
    """The question is sent by value: here to a process that cannot import the package it is from."""
    pickled = tmp_path / "question"
    ask = (
        "import sys, ray.cloudpickle as c; from rootmodels.distributed import versions as v; "
        "c.register_pickle_by_value(v); open(sys.argv[1], 'wb').write(c.dumps(v.look))"
    )
    answer = (
        "import sys, ray.cloudpickle as c; sys.modules['rootmodels'] = None; "
        "print(c.loads(open(sys.argv[1], 'rb').read())((sys.argv[1], '/no/such')))"
    )
    told = ""
    for program in (ask, answer):
        result = subprocess.run(
            [sys.executable, "-c", program, str(pickled)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        told = result.stdout
    assert "'sources': 'none'" in told
    assert told.strip().endswith("('/no/such',))")


class RayError(Exception):
    """As Ray's own."""


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(f"Traceback\n{type(cause).__name__}: {cause}")
        self.cause = cause


_KINDS = (
    "WorkerCrashedError",
    "OutOfMemoryError",
    "NodeDiedError",
    "ObjectLostError",
    "LocalRayletDiedError",
    "GetTimeoutError",
    "TaskUnschedulableError",
)
_ERRORS = {name: type(name, (RayError,), {}) for name in _KINDS}
ERRORS = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, **_ERRORS)


class FakeRay:
    """Ends each task with the next of ``outcomes``, an error or a value."""

    def __init__(self, outcomes: list[Any], cpus: float = 1.0) -> None:
        self.exceptions = ERRORS
        self.util: Any = None
        self.cloudpickle: Any = None
        self._outcomes = outcomes
        self._cpus = cpus
        self.begun = 0

    def nodes(self) -> list[dict[str, Any]]:
        resources = {"CPU": self._cpus} if self._cpus else {}
        about = {"NodeID": "n", "NodeManagerAddress": "127.0.0.1", "Alive": True}
        return [about | {"Resources": resources}]

    def remote(self, function: object) -> "FakeRay":
        return self

    def options(self, **_: object) -> SimpleNamespace:
        return SimpleNamespace(remote=self._begin)

    def _begin(self, *_: object) -> int:
        self.begun += 1
        return self.begun

    def wait(self, references: list[int], timeout: float) -> tuple[list[int], list[int]]:
        return (references[:1], references[1:]) if self._cpus else ([], references)

    def get(self, reference: int, timeout: float = 0.0) -> Any:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def outcome(*outcomes: Any) -> tuple[Any, list[str], FakeRay]:
    """What becomes of a task whose tries end so, what was told, and the cluster."""
    told: list[str] = []
    ray = FakeRay(list(outcomes))
    tasks = OnCluster(Cluster(ray, "here"), tell=told.append)
    tasks.add("task", print)
    ((key, result),) = tasks.finished()
    assert key == "task"
    return result, told, ray


def test_a_task_whose_node_dies_is_done_elsewhere() -> None:
    result, told, ray = outcome(
        ERRORS.NodeDiedError(), ERRORS.ObjectLostError(), ERRORS.NodeDiedError(), 7
    )
    assert (result, ray.begun) == (7, 4)
    assert told == ["a node died; what it was computing is computed elsewhere"] * 3


def test_a_task_that_kills_its_process_is_given_up() -> None:
    errors = [ERRORS.WorkerCrashedError("it crashed"), ERRORS.OutOfMemoryError("it crashed")]
    result, _, ray = outcome(*errors, errors[0])
    assert isinstance(result, Failure)
    assert str(result.error) == "3 processes died computing it (it crashed)"
    assert ray.begun == MOST_CRASHES


def test_what_is_wrong_with_a_task_itself_is_its_failure() -> None:
    result, _, _ = outcome(RayTaskError(ValueError("broken")))
    assert isinstance(result, Failure)
    assert str(result.error) == "broken"


def test_a_node_with_another_version_that_came_later_ends_it() -> None:
    with pytest.raises(VersionsError, match="node b has torch"):
        outcome(RayTaskError(VersionsError("node b has torch 1")))


def test_what_nobody_expects_ends_it_in_a_line() -> None:
    with pytest.raises(ClusterError, match="a task failed on a node: KeyError: 'x'"):
        outcome(RayTaskError(KeyError("x")))


def test_a_cluster_that_goes_away_ends_it() -> None:
    with pytest.raises(ClusterLostError, match="what was done is kept"):
        outcome(ERRORS.LocalRayletDiedError())
    with pytest.raises(ClusterLostError, match="cannot go on: odd; what was done is kept"):
        outcome(RayError("odd\nand more"))


def test_a_cluster_without_room_is_not_waited_for_without_end() -> None:
    told: list[str] = []
    tasks = OnCluster(
        Cluster(FakeRay([], cpus=0), "here"), Needs(2, 1), tell=told.append, patience_s=0.05
    )
    tasks.add("task", print)
    with pytest.raises(ClusterLostError, match=r"no node with 2 CPUs and 1 GPU for 0\.05 s"):
        list(tasks.finished())


def asked(answers: list[Any]) -> None:
    """Ask a cluster of one node what is installed there, which answers so."""
    ray = FakeRay(answers)
    strategy = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
    ray.util = SimpleNamespace(scheduling_strategies=strategy)
    ray.cloudpickle = SimpleNamespace(register_pickle_by_value=lambda module: None)
    joining.check_nodes(Cluster(ray, "here"), [Path("/")])


def test_a_node_that_does_not_see_the_folder_is_refused() -> None:
    asked([(versions.installed(), ())])
    with pytest.raises(
        VersionsError, match=r"node 127\.0\.0\.1 \(n\) does not see /data; expected"
    ):
        asked([(versions.installed(), ("/data",))])


def test_a_node_that_cannot_say_what_it_has_is_refused_and_one_that_died_is_not_asked() -> None:
    asked([ERRORS.NodeDiedError()])
    with pytest.raises(VersionsError, match=r"node .* did not say within 90 s"):
        asked([ERRORS.GetTimeoutError()])
    with pytest.raises(VersionsError, match="cannot say what is installed on it: it crashed"):
        asked([ERRORS.WorkerCrashedError("it crashed")])
