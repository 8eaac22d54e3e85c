"""Tasks on a cluster until each is done, whoever dies; or one after the other, in this process."""

from __future__ import annotations

import functools
import socket
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from rootmodels.distributed import versions
from rootmodels.distributed.errors import ClusterError, ClusterLostError, VersionsError
from rootmodels.distributed.joining import Cluster, check_versions

OF_A_TASK = (MemoryError, OSError, RuntimeError, ValueError)
"""What may be wrong with one task alone: its files, its memory, a GPU's. All else ends the work."""

MOST_CRASHES = 3
"""A task of which so many processes died is given up: it is the task that kills them."""

_MOST_LOST = 20
"""The same for nodes that died while they had it: they die of something else."""

_TICK_S = 0.5
_PATIENCE_S = 120.0
"""So long there may be no node that could do a task: a new one may be on its way."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task is given: processors and GPUs."""

    cpus: int = 1
    gpus: int = 0

    def __str__(self) -> str:
        """In words."""
        gpus = f" and {self.gpus} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else ""
        return f"{self.cpus} CPU{'s' if self.cpus != 1 else ''}{gpus}"


@dataclass(frozen=True, slots=True)
class Failure:
    """Instead of a result: why there is none."""

    error: Exception


class Tasks(Protocol):
    """Where tasks are done. A task is a function that gives the same whenever and wherever it runs."""

    def add(self, key: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        """Have ``function(*arguments)`` done; :meth:`finished` tells its result under ``key``."""

    def share(self, value: object) -> Any:
        """An argument for many tasks that stands for ``value``; brought once to where they run."""

    def finished(self) -> Iterator[tuple[Hashable, Any]]:
        """Key and result, or :class:`Failure`, of each task as it ends; more may be added meanwhile."""


class Here:
    """One after the other, in this process: what a cluster's results are held to."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Hashable, Callable[..., Any], tuple[Any, ...]]] = deque()

    def add(self, key: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        """See :class:`Tasks`."""
        self._waiting.append((key, function, arguments))

    def share(self, value: object) -> Any:
        """See :class:`Tasks`."""
        return value

    def finished(self) -> Iterator[tuple[Hashable, Any]]:
        """See :class:`Tasks`."""
        while self._waiting:
            key, function, arguments = self._waiting.popleft()
            try:
                result = function(*arguments)
            except OF_A_TASK as error:
                result = Failure(error)
            yield key, result


@dataclass(slots=True)
class _Task:
    key: Hashable
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    crashes: int = 0
    lost: int = 0


@dataclass(slots=True)
class OnCluster:
    """On the nodes of ``cluster``, as many at a time as have room, and as many again waiting there.

    Args:
        cluster: Where.
        needs: What each task is given.
        tell: Is told, in a line, of nodes that died and of waiting for some.
        tick: Is called about twice a second while tasks run.
        patience_s: How long there may be no node with room for a task.
    """

    cluster: Cluster
    needs: Needs = field(default_factory=Needs)
    tell: Callable[[str], None] = lambda line: None
    tick: Callable[[], None] = lambda: None
    patience_s: float = _PATIENCE_S
    _waiting: deque[_Task] = field(default_factory=deque)
    _running: dict[Any, _Task] = field(default_factory=dict)
    _able_at: float = 0.0
    _told: bool = False

    def add(self, key: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        """See :class:`Tasks`. ``function`` is one of a module, which each node has."""
        self._waiting.append(_Task(key, function, arguments))

    def share(self, value: object) -> Any:
        """See :class:`Tasks`."""
        return self.cluster.ray.put(value)

    def finished(self) -> Iterator[tuple[Hashable, Any]]:
        """See :class:`Tasks`.

        Raises:
            ClusterLostError: if the cluster is gone, or has no node that could do what is left.
        """
        self._able_at = time.monotonic()
        while self._waiting or self._running:
            self._submit()
            done, _ = self.cluster.ray.wait(list(self._running), timeout=_TICK_S)
            self.tick()
            for reference in done:
                task = self._running.pop(reference)
                result = self._result(task, reference)
                if result is not None:
                    yield task.key, result[0]
            if done:
                self._able_at = time.monotonic()
            else:
                self._check_able()

    def _submit(self) -> None:
        room = sum(self._fit(node.cpus, node.gpus) for node in self.cluster.nodes())
        remote = self.cluster.ray.remote(_as_asked)
        while self._waiting and len(self._running) < 2 * max(1, room):
            task = self._waiting.popleft()
            # Done again by us, who know what was lost, and not by Ray.
            options = {"num_cpus": self.needs.cpus, "num_gpus": self.needs.gpus, "max_retries": 0}
            reference = remote.options(**options).remote(
                installed(), task.function, *task.arguments
            )
            self._running[reference] = task

    def _fit(self, cpus: float, gpus: float) -> int:
        """How many tasks fit on a node that has so much."""
        fit = int(cpus // self.needs.cpus)
        return min(fit, int(gpus // self.needs.gpus)) if self.needs.gpus else fit

    def _result(self, task: _Task, reference: Any) -> tuple[Any] | None:
        """The result or Failure of an ended ``task``; None if it has to be done again."""
        errors = self.cluster.ray.exceptions
        try:
            return (self.cluster.ray.get(reference),)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, VersionsError):
                raise cause from error
            if isinstance(cause, OF_A_TASK):
                return (Failure(cause),)
            raise ClusterError(f"a task failed on a node: {_last_line(str(error))}") from error
        except (errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            task.crashes += 1
            if task.crashes >= MOST_CRASHES:
                text = f"{task.crashes} processes died computing it ({_first_line(str(error))})"
                return (Failure(ClusterError(text)),)
            self.tell("a process died; what it was computing is computed again")
        except (errors.NodeDiedError, errors.ObjectLostError):
            task.lost += 1
            if task.lost >= _MOST_LOST:
                text = f"{task.lost} nodes died while they had it"
                return (Failure(ClusterError(text)),)
            self.tell("a node died; what it was computing is computed elsewhere")
        except errors.LocalRayletDiedError as error:
            raise ClusterLostError(
                "this machine's part of the cluster died; what was done is kept"
            ) from error
        except errors.RayError as error:
            raise ClusterLostError(
                f"the cluster cannot go on: {_first_line(str(error))}; what was done is kept"
            ) from error
        # First in the queue: what it delays is all that comes after it.
        self._waiting.appendleft(task)
        return None

    def _check_able(self) -> None:
        if any(self._fit(node.cpus, node.gpus) for node in self.cluster.nodes()):
            self._able_at, self._told = time.monotonic(), False
            return
        waited = time.monotonic() - self._able_at
        if waited >= self.patience_s:
            raise ClusterLostError(
                f"the cluster at {self.cluster.address} has had no node with {self.needs} for "
                f"{self.patience_s:g} s; what was done is kept"
            )
        if not self._told:
            self.tell(f"waiting for a node with {self.needs}")
        self._told = True


installed = functools.cache(versions.installed)
"""What is installed in this process: asked for by every task and every shard."""


def _as_asked(expected: versions.Versions, function: Callable[..., Any], *arguments: Any) -> Any:
    """A task on its node, which may have come after all others were asked for their versions.

    Raises:
        VersionsError: if this node has other versions than the machine that asks.
    """
    check_versions(installed(), expected, f"node {socket.gethostname()}")
    return function(*arguments)


def _first_line(text: str) -> str:
    return text.strip().split("\n", maxsplit=1)[0][:300]


def _last_line(text: str) -> str:
    return text.strip().rsplit("\n", maxsplit=1)[-1][:300]
