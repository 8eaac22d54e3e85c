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

    def wait_stream(self, other: Stream | None) -> None:
        """Nothing here runs by itself: what another stream was given before is done when it is waited for."""
        if other is not None:
            other.synchronize()

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


class _Instead(TorchDispatchMode):
    """Has ``do`` carry out each operation of torch, given that, its arguments, and the call of both."""

    def __init__(self, do: Callable[[Any, Any, Callable[[], Any]], Any]) -> None:
        super().__init__()
        self._do = do

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        return self._do(func, args, lambda: func(*args, **(kwargs or {})))


@contextmanager
def _on(stream: Stream) -> Iterator[None]:
    """Copies into memory that is there wait for their turn; all else is done at once."""

    def do(func: Any, args: Any, call: Callable[[], Any]) -> Any:
        if func is torch.ops.aten.copy_.default:
            stream.work.append(call)
            return args[0]
        return call()

    before, _Current.stream = _Current.stream, stream
    try:
        with _Instead(do):
            yield
    finally:
        _Current.stream = before


@contextmanager
def _capture(graph: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
    assert not stream.work, "a capture begins on a stream that has nothing to do"
    assert capture_error_mode == "thread_local", "other threads may be computing"

    def do(func: Any, args: Any, call: Callable[[], Any]) -> Any:
        result = call()

        def again() -> None:
            for to, value in zip(tree_leaves(result), tree_leaves(call()), strict=True):
                if isinstance(to, Tensor):
                    to.copy_(value)

        graph.steps.append(again)
        return result

    with _Instead(do):
        yield


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the names in torch that a GPU needs mean the ones here."""
    zeros = torch.zeros

    def not_pinned(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
        return zeros(*args, **kwargs)

    monkeypatch.setattr(torch, "zeros", not_pinned)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: _Current.stream)
    for name, fake in {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "stream": _on,
        "graph": _capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
