"""What becomes of a handler that fails, and of a caller that does not read."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from rootserve.server.observers.events import Observer, Refusal
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire import handling
from rootserve.server.wire.memory_guard import MemoryGuard


class Noting(Observer):
    def __init__(self) -> None:
        self.refusals: list[Refusal] = []

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)


class Context:
    """A call with one message, whose caller takes ``takes`` responses and then no more."""

    def __init__(self, takes: float = float("inf")) -> None:
        self.takes = takes
        self.status: tuple[grpc.StatusCode, str] | None = None
        self._code = grpc.StatusCode.OK

    async def abort(self, code: grpc.StatusCode, text: str, details: object = ()) -> None:
        self.status = code, text
        raise grpc.aio.AbortError

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, text: str) -> None:
        self.status = self._code, text

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def read(self) -> bytes:
        return b""

    async def write(self, response: object) -> None:
        self.takes -= 1
        if self.takes < 0:
            await asyncio.Event().wait()


def identity(content: Any) -> Any:
    return content


async def run(handler: Any, observer: Observer, context: Context, *, streams: bool) -> None:
    """Call ``handler`` as the server does."""
    make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    door = handling._Door(observer, MemoryGuard(2**30, lambda: 0), 2**20, None)
    wrapped: Any = handling._wrap(make(handler, identity, identity), "Method", door)
    behave = wrapped.stream_stream if streams else wrapped.stream_unary
    with contextlib.suppress(grpc.aio.AbortError):
        await behave(None, context)


@pytest.mark.parametrize("streams", [False, True])
async def test_an_exception_that_is_no_refusal_is_logged_counted_and_told_without_its_text(
    streams: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def call(request: bytes, context: Context) -> bytes:
        raise KeyError("private")

    observer, context = Noting(), Context()
    with caplog.at_level(logging.ERROR):
        await run(call, observer, context, streams=streams)
    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.INTERNAL
    assert "private" not in context.status[1]
    assert [(each.reason, each.method) for each in observer.refusals] == [
        (Reason.INTERNAL_ERROR, "Method")
    ]
    assert "private" in caplog.text


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("told", [False, True])
async def test_a_refusal_is_told_once_whoever_raised_it(streams: bool, told: bool) -> None:
    refusal = RefusalError(Reason.ANALYSES_FULL, "two analyses run, no more may")
    refusal.told = told

    async def call(request: bytes, context: Context) -> None:
        raise refusal

    observer, context = Noting(), Context()
    await run(call, observer, context, streams=streams)
    assert context.status == (grpc.StatusCode.RESOURCE_EXHAUSTED, "two analyses run, no more may")
    expected = [(Reason.ANALYSES_FULL, "RESOURCE_EXHAUSTED", "Method", "ipv4:127.0.0.1:1")]
    found = [(one.reason, one.code, one.method, one.peer) for one in observer.refusals]
    assert found == ([] if told else expected)


async def test_a_method_that_is_not_served_is_a_refusal() -> None:
    async def call(request: bytes, context: Context) -> None:
        raise NotImplementedError

    observer, context = Noting(), Context()
    await run(call, observer, context, streams=False)
    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.UNIMPLEMENTED
    assert [one.reason for one in observer.refusals] == [Reason.NOT_IMPLEMENTED]


async def test_a_call_that_was_aborted_is_no_fault_of_the_service() -> None:
    async def call(request: bytes, context: Context) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "not here")

    observer, context = Noting(), Context()
    await run(call, observer, context, streams=False)
    assert context.status == (grpc.StatusCode.NOT_FOUND, "not here")
    assert not observer.refusals


async def test_a_caller_that_takes_no_response_ends_the_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handling, "UNREAD_S", 0.05)
    ended = False

    async def generate(request: bytes, context: Context) -> AsyncIterator[bytes]:
        nonlocal ended
        try:
            while True:
                yield b"x"
        finally:
            ended = True

    context = Context(takes=3)
    await asyncio.wait_for(run(generate, Noting(), context, streams=True), 60)
    assert ended
    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.CANCELLED
