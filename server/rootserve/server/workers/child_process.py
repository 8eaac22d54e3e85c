"""A child process of the service and the link to it: what workers and analysis processes have in common."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import rootmodels
import rootserve
from rootserve.server.datagram import MAX_BYTES

_log = logging.getLogger(__name__)


class ChildProcess:
    """A child that runs, until its link is closed at either end.

    Args:
        name: What log lines call it.
        command: A module of ours and its arguments; ``--link-fd`` is added.
        threads: With how many it computes.
        on_datagram: Gets each datagram from the child, which is killed if this raises: whoever waits for
            it must not wait for ever.
        on_end: Called once when the child has closed the link, or died.
        descriptors: File descriptors that it inherits.

    Raises:
        OSError: It cannot be started; nothing is left of it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        threads: int,
        on_datagram: Callable[[bytes], None],
        on_end: Callable[[], None],
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._on_datagram = on_datagram
        self._on_end = on_end
        self._closed = False
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)
        started: subprocess.Popen[bytes] | None = None
        try:
            # Popen spawns with vfork: gRPC's fork handlers, which must not run here, do not.
            started = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", *command, "--link-fd", str(theirs.fileno())],
                pass_fds=(*descriptors, theirs.fileno()),
                env=_environment(threads),
                stdin=subprocess.DEVNULL,
                # In a group of its own: a Ctrl-C at the terminal is the service's to handle.
                start_new_session=True,
            )
            asyncio.get_running_loop().add_reader(self._link, self._on_readable)
        except BaseException:
            self._link.close()
            if started is not None:
                started.kill()
                started.wait()
            raise
        finally:
            theirs.close()
        self._process = started

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, content: bytes, descriptors: Sequence[int] = ()) -> bool:
        """Send a datagram; False if that cannot be.

        A child that cannot be told is of no use and is killed: its end is read from the link.
        """
        try:
            if descriptors:
                socket.send_fds(self._link, [content], list(descriptors))
            else:
                self._link.send(content)
        except OSError:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """End it now; its end is told as any other."""
        self._process.kill()

    def close(self) -> None:
        """Close the link, which ends a child that waits at it; nothing more is told of this one."""
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().remove_reader(self._link)
            self._link.close()

    async def wait(self) -> int:
        """Wait for its end; its exit status, negative for a signal."""
        return await asyncio.to_thread(self._process.wait)

    async def stop(self, patience_s: float) -> None:
        """Close the link, and kill it if it has not ended in time."""
        self.close()
        try:
            await asyncio.to_thread(self._process.wait, patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            await self.wait()

    def _on_readable(self) -> None:
        try:
            self._read()
        except ConnectionResetError:
            # It died with a message unread. What it said before still comes, then the end; nobody
            # calls again for it, because the loop takes the reset for the end.
            while not self._closed:
                self._read()

    def _read(self) -> None:
        """Take one datagram from the link, if there is one."""
        try:
            datagram = self._link.recv(MAX_BYTES)
        except BlockingIOError:
            return
        if not datagram:
            self.close()
            self._on_end()
            return
        try:
            self._on_datagram(datagram)
        except Exception:  # noqa: BLE001 - whatever it is
            text = "%s: a message could not be handled"
            _log.exception(text, self.name, extra={"pid": self.pid})
            self.kill()


def _environment(threads: int) -> dict[str, str]:
    """That of a child that imports what this process imports and computes with ``threads``."""
    # A namespace has a path for each of its parts.
    packages = [*rootserve.__path__, *rootmodels.__path__]
    roots = dict.fromkeys(str(Path(package).parent) for package in packages)
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*roots, path] if path else roots),
        "OMP_NUM_THREADS": str(max(1, threads)),
    }
