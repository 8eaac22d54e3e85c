"""The gRPC server itself: its options, and where it listens."""

from __future__ import annotations

import grpc

from rootserve.server.settings import Settings


class ListenError(RuntimeError):
    """The server cannot listen there; one line that says why."""


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """What gRPC's server is told."""
    size = settings.max_message_mb * 2**20
    options = [
        ("grpc.max_receive_message_length", size),
        ("grpc.max_send_message_length", size),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.so_reuseport", 0),
        # The core would unpack whatever is in a message; wire/receiving.py keeps to the limit.
        ("grpc.per_message_decompression", 0),
        # What a call may send before its handler asks for it. Left to itself, gRPC makes it many MiB.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 2**18),
        # Clients ping to find dead connections, and networks forget idle ones: neither is an attack. A ping
        # may be on its way for longer than the next.
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            round(settings.min_ping_interval_s * 900),
        ),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    if settings.max_connection_age_s:
        age_ms = max(1, round(settings.max_connection_age_s * 1000))
        grace_ms = min(round(settings.drain_s * 1000), 2**31 - 1)
        options.append(("grpc.max_connection_age_ms", age_ms))
        options.append(("grpc.max_connection_age_grace_ms", grace_ms))
    return options


def authority_of(host: str, port: int) -> str:
    """``host:port``, as URLs and gRPC have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(
    server: grpc.aio.Server, authority: str, credentials: grpc.ServerCredentials | None
) -> int:
    """Listen at ``authority``; the port, if that was 0 the one that was given.

    Raises:
        ListenError: It cannot be.
    """
    try:
        if credentials:
            return server.add_secure_port(authority, credentials)
        return server.add_insecure_port(authority)
    except RuntimeError as error:
        raise ListenError(
            f"port: cannot listen on {authority}; is it in use, or the address not of this machine?"
        ) from error
