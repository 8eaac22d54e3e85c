"""Tells systemd how the service is: that it is ready, what it does, that it lives, that it ends.

The protocol is a datagram of lines KEY=VALUE to the socket that NOTIFY_SOCKET names (sd_notify(3)). Without
that variable, nothing is told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import MutableMapping

from rootserve.server.models import Models, State

_log = logging.getLogger(__name__)

_MOST_NAMES = 5


class Notifier:
    """Tells of ``models``.

    Takes the variables out of ``environment``: workers must not speak for the service. READY is told once
    every model is ready or cannot be loaded, so that what is started after the service finds it answering.
    """

    def __init__(self, models: Models, environment: MutableMapping[str, str] = os.environ) -> None:
        self._models = models
        self._address = environment.pop("NOTIFY_SOCKET", "")
        watchdog_us = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._beat_s = int(watchdog_us) / 2e6 if watchdog_us.isdecimal() and watched else 0.0
        self._listening = self._ready = False
        self._status = ""

    def listening(self) -> None:
        """The service can be asked; from now on its models are told of."""
        self._listening = True
        self.models_changed()

    def models_changed(self) -> None:
        """The state of a model may have changed."""
        if not (self._address and self._listening):
            return
        served = self._models.served()
        states = [model.state for model in served]
        lines = []
        if not self._ready and State.LOADING not in states:
            self._ready = True
            lines.append("READY=1")
        failed = [model.card.name for model in served if model.state is State.FAILED]
        status = _status(len(served), states.count(State.READY), failed)
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if lines:
            self._send("\n".join(lines))

    def stopping(self) -> None:
        """The service is about to end."""
        self._listening = False
        if self._address:
            self._send("STOPPING=1\nSTATUS=finishing what was admitted")

    async def keep_alive(self) -> None:
        """Tell the watchdog, if there is one, that the event loop turns; for ever."""
        while self._address and self._beat_s:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._beat_s)

    def _send(self, text: str) -> None:
        # An abstract socket is written with an @ where its name has a zero byte.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(text.encode(), address)
        except OSError as error:
            _log.warning("NOTIFY_SOCKET %s: %s", self._address, error.strerror)


def _status(served: int, ready: int, failed: list[str]) -> str:
    if ready == served:
        return f"serving {_models(served)}"
    parts = [f"serving {ready} of {_models(served)}"]
    if loading := served - ready - len(failed):
        parts.append(f"{loading} loading")
    if failed:
        names = ", ".join(failed[:_MOST_NAMES]) + (", ..." if len(failed) > _MOST_NAMES else "")
        parts.append(f"{len(failed)} failed: {names}")
    return ", ".join(parts)


def _models(count: int) -> str:
    return f"{count} model" if count == 1 else f"{count} models"
