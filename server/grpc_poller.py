"""Which thread reads the sockets. gRPC is told by its environment, before it is imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from importlib import metadata

_EXPERIMENTS = "GRPC_EXPERIMENTS"
_FIRST_WITHOUT_CHOICE = (1, 83)


def have_the_waiting_thread_read(
    environment: MutableMapping[str, str] = os.environ, grpcio: str | None = None
) -> None:
    """Have the thread that waits for the calls' events read the sockets itself.

    By default gRPC has threads of its own for that (EventEngine), which hand every event on: twice the thread
    switches for each call (docs/adr/0011-who-reads-the-sockets.md). From release 1.83 on there is nothing to
    choose. What the operator put into GRPC_EXPERIMENTS stays as it is.
    """
    release = metadata.version("grpcio") if grpcio is None else grpcio
    if tuple(map(int, release.split(".")[:2])) < _FIRST_WITHOUT_CHOICE:
        environment.setdefault(_EXPERIMENTS, "-event_engine_poller_for_python")
