"""Rootserve's client: the library beneath the command line `rootserve`.

Start at `Client` (ask a server; `AsyncClient` with asyncio), `accuracy` (top-1 accuracy through the service),
`run_load` (measure a server under load) and `analyze` (see inside a network). A name is imported when it is
first asked for, so that the command line starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootserve.client.analysis.service import analyze
    from rootserve.client.blocking import Client
    from rootserve.client.credentials import CredentialFiles, Credentials
    from rootserve.client.errors import Promise, ServerError, Unreachable
    from rootserve.client.evaluate import accuracy
    from rootserve.client.inference import AsyncClient
    from rootserve.client.load import LoadOptions, run_load
    from rootserve.client.retry import NO_RETRIES, RetryPolicy

__all__ = [
    "NO_RETRIES",
    "AsyncClient",
    "Client",
    "CredentialFiles",
    "Credentials",
    "LoadOptions",
    "Promise",
    "RetryPolicy",
    "ServerError",
    "Unreachable",
    "accuracy",
    "analyze",
    "run_load",
]

_HOMES = {
    "analysis.service": ("analyze",),
    "blocking": ("Client",),
    "credentials": ("CredentialFiles", "Credentials"),
    "errors": ("Promise", "ServerError", "Unreachable"),
    "evaluate": ("accuracy",),
    "inference": ("AsyncClient",),
    "load": ("LoadOptions", "run_load"),
    "retry": ("NO_RETRIES", "RetryPolicy"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
