"""Who calls, for log lines: the address of a call, the name of its token, the id that a proxy gave it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

_LONGEST_CALLER = 128

_token_name: ContextVar[str] = ContextVar("token_name", default="")


def set_token_name(name: str) -> None:
    """The call of this task came with the token called ``name``."""
    _token_name.set(name)


def peer_of(context: Any) -> str:
    """The address of the caller, as gRPC has it, such as ``ipv6:[::1]:5000``."""
    return unquote(context.peer() or "")


def token_name() -> str:
    """The name of the token that the call of this task came with; "" if there was none."""
    return _token_name.get()


def call_id_of(context: Any) -> str:
    """The ``x-request-id`` of the call, by which a proxy's log has it; "" if there is none."""
    return _metadata(context, "x-request-id") or ""


def share_of(context: Any, key: str) -> str:
    """Whose share of a family a request takes: what the metadata ``key`` says, else the token's name.

    Longer values are cut.
    """
    share = _metadata(context, key) if key else None
    return token_name() if share is None else share[:_LONGEST_CALLER]


def caller_of(context: Any) -> str:
    """The address, and the name of the token if there was one."""
    name = token_name()
    return f"{peer_of(context)} token {name}" if name else peer_of(context)


def _metadata(context: Any, key: str) -> str | None:
    """The first value of ``key`` that came with the call; None if none did."""
    for name, value in context.invocation_metadata() or ():
        if name == key:
            return str(value)
    return None
