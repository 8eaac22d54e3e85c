"""The client for threads: `AsyncClient`, run on an event loop in a thread of its own."""

import asyncio
import functools
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from rootserve.client.address import DEFAULT_ADDRESS, Address
from rootserve.client.channel import CONNECT_TIMEOUT_S
from rootserve.client.credentials import PLAINTEXT, Credentials
from rootserve.client.defaults import TIMEOUT_S
from rootserve.client.errors import ServerError
from rootserve.client.inference import RETRY, AsyncClient
from rootserve.client.retry import RetryPolicy

P = ParamSpec("P")
T = TypeVar("T")


class _LoopThread:
    """An event loop in a thread; any number of threads may have work done there and wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        started = threading.Event()
        # Should nobody stop it, it must not keep the program alive.
        self._thread = threading.Thread(
            target=self._serve, args=[started], name="rootserve-client", daemon=True
        )
        self._thread.start()
        started.wait()

    def _serve(self, started: threading.Event) -> None:
        # Not asyncio.run: in the end it starts a thread, which it cannot when the program ends as well.
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._live(started))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    async def _live(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        started.set()
        await self._stop.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work gives or raises. Whatever ends the waiting, such as Ctrl-C, ends the work too.

        Raises:
            ServerError: CANCELLED when the thread is stopped meanwhile.
            ValueError: It was stopped before.
        """
        with self._lock:
            # What is begun before the stop is ended by it; later it would never be.
            if self._stopped:
                work.close()
                raise ValueError("the client is closed: expected calls within its 'with' alone")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ServerError("CANCELLED", "the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End what is under way, and the thread."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            self._loop.call_soon_threadsafe(self._stop.set)
        # It is this very thread when the client is found unused there.
        if threading.current_thread() is not self._thread:
            self._thread.join()


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Client", P], T]:
    """The same method for a thread that waits."""

    @functools.wraps(method)
    def wait(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(method(self._client, *args, **kwargs))

    return wait


class Client:
    """One connection to one server, for `with`; any number of threads may share it:

        with Client("127.0.0.1:8001") as client:
            answer = client.infer("nin-orig", images)

    Its methods are those of `AsyncClient`. Every one raises `ServerError` when the server refuses or fails,
    and entering raises `Unreachable` when no server answers. Leaving ends the calls of other threads
    that are under way, with CANCELLED.

    Args:
        server: HOST:PORT.
        credentials: TLS and a token, if the server wants them.
        timeout_s: Deadline of each call, with all its tries.
        connect_timeout_s: How long to wait for the connection.
        retry: When a refused or failed call is made again.
    """  # noqa: D415 - the first line introduces the example

    def __init__(
        self,
        server: str | Address = DEFAULT_ADDRESS,
        *,
        credentials: Credentials = PLAINTEXT,
        timeout_s: float = TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        retry: RetryPolicy = RETRY,
    ) -> None:
        self._client = AsyncClient(
            server,
            credentials=credentials,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            retry=retry,
        )
        self._thread: _LoopThread | None = None

    @property
    def address(self) -> Address:
        """The server's."""
        return self._client.address

    @property
    def timeout_s(self) -> float:
        """Deadline of each call."""
        return self._client.timeout_s

    def __enter__(self) -> Self:
        self._thread = _LoopThread()
        # Also when it is forgotten, or the program ends within.
        self._end = weakref.finalize(self, self._thread.stop)
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._client.__aexit__())
        finally:
            self._end()

    models = _blocking(AsyncClient.models)
    families = _blocking(AsyncClient.families)
    latency_table = _blocking(AsyncClient.latency_table)
    explain = _blocking(AsyncClient.explain)
    model = _blocking(AsyncClient.model)
    server_info = _blocking(AsyncClient.server_info)
    health = _blocking(AsyncClient.health)
    infer = _blocking(AsyncClient.infer)
    infer_encoded = _blocking(AsyncClient.infer_encoded)
    load_model = _blocking(AsyncClient.load_model)
    roll_back_model = _blocking(AsyncClient.roll_back_model)
    unload_model = _blocking(AsyncClient.unload_model)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._thread is None:
            work.close()
            raise ValueError("the client is not open: expected 'with Client(...) as client'")
        return self._thread.run(work)
