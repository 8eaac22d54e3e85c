"""A way to a server that passes everything on, and counts the HTTP/2 pings that its clients send."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD_BYTES = 9
_PING, _ACK = 6, 1


class PingCounter:
    """A context in which ``address`` leads to ``target``; ``connections`` and ``pings`` count."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.pings = 0
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                self.connections += 1
                threading.Thread(target=self._relay, args=(server, client), daemon=True).start()
                threading.Thread(
                    target=self._relay, args=(client, server), kwargs={"counts": True}, daemon=True
                ).start()

    def _relay(self, source: socket.socket, sink: socket.socket, *, counts: bool = False) -> None:
        waiting = bytearray()
        skipped = len(_PREFACE)
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if counts:
                    waiting += data
                    skipped = self._count(waiting, skipped)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _count(self, waiting: bytearray, skipped: int) -> int:
        """Take from ``waiting`` what has come whole or is to be skipped; gives what is left to skip."""
        while True:
            taken = min(skipped, len(waiting))
            del waiting[:taken]
            skipped -= taken
            if skipped or len(waiting) < _HEAD_BYTES:
                return skipped
            self.pings += waiting[3] == _PING and not waiting[4] & _ACK
            skipped = _HEAD_BYTES + int.from_bytes(waiting[:3])
