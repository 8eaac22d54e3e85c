"""CUDA's streams, events and graphs on the CPU, as strictly ordered as on a GPU and no more.

What is given to a stream is not done before somebody waits for an event of it; a graph does again what was
done while it was captured, on the same memory. What a program reads too early, or keeps too briefly, is then
wrong here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Stream:
    """Work that is done in order, once it is waited for."""

    def __init__(self, device: object = None) -> None:
        self.work: list[Callable[[], object]] = []

    def synchronize(self) -> None:
        """Do all that was given."""
        for step in self.work:
            step()
        self.work.clear()


class _Current:
    stream: Stream | None = None


class Event:
    """A place in a stream."""

    def __init__(self) -> None:
        self._stream: Stream | None = None

    def record(self) -> None:
        """All work of the current stream comes before it."""
        self._stream = _Current.stream

    def synchronize(self) -> None:
        """Wait until it is reached."""
        assert self._stream is not None, "nobody recorded the event"
        self._stream.synchronize()


class Graph:
    """What was done while it was captured."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], object]] = []

    def replay(self) -> None:
        """Give it to the current stream."""
        assert _Current.stream is not None, "a graph is replayed on a stream"
        _Current.stream.work.extend(self.steps)


class _Deferring(TorchDispatchMode):
    """Copies into memory that is there wait for their turn; all else is done at once."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.copy_.default:
            self._stream.work.append(lambda: func(*args, **(kwargs or {})))
            return args[0]
        return func(*args, **(kwargs or {}))


class _Capturing(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))

        def again() -> None:
            kept, new = tree_leaves(result), tree_leaves(func(*args, **(kwargs or {})))
            for to, value in zip(kept, new, strict=True):
                if isinstance(to, Tensor):
                    to.copy_(value)

        self._graph.steps.append(again)
        return result


@contextmanager
def _on(stream: Stream) -> Iterator[None]:
    before, _Current.stream = _Current.stream, stream
    try:
        with _Deferring(stream):
            yield
    finally:
        _Current.stream = before


@contextmanager
def _capture(graph: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
    assert not stream.work, "a capture begins on a stream that has nothing to do"
    assert capture_error_mode == "thread_local", "other threads may be computing"
    with _Capturing(graph):
        yield


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the names in torch that a GPU needs mean the ones here."""
    zeros = torch.zeros

    def not_pinned(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
        return zeros(*args, **kwargs)

    monkeypatch.setattr(torch, "zeros", not_pinned)
    for name, fake in {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "stream": _on,
        "graph": _capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
