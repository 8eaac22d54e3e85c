"""gRPC channels to a server, and its failures as the client's own exceptions."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import grpc.aio

from client.address import Address
from client.bearer import BearerChannel
from client.credentials import PLAINTEXT, Credentials
from client.errors import ServerError, Unreachable

# gRPC's own limit of 4 MiB is passed by some 1,400 CIFAR images.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0


def _channel_options(address: Address) -> list[tuple[str, int]]:
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # A restarted server is found again within a second instead of after gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Otherwise a second channel would inherit the first one's connection and its backoff.
        ("grpc.use_local_subchannel_pool", 1),
        # An http_proxy meant for the outside world must not catch calls to this very machine.
        ("grpc.enable_http_proxy", 0 if address.is_loopback else 1),
    ]


def open_aio_channel(address: Address, credentials: Credentials = PLAINTEXT) -> grpc.aio.Channel:
    """Open a channel for asyncio. It connects at its first call and sends the token with each."""
    options = _channel_options(address)
    if credentials.tls:
        tls = grpc.ssl_channel_credentials(
            credentials.roots, credentials.key, credentials.certificate
        )
        channel = grpc.aio.secure_channel(str(address), tls, options=options)
    else:
        channel = grpc.aio.insecure_channel(str(address), options=options)
    if credentials.token is None:
        return channel
    return BearerChannel(channel, credentials.token)


async def connect(
    channel: grpc.aio.Channel,
    address: Address,
    timeout_s: float = CONNECT_TIMEOUT_S,
    *,
    tls: bool = False,
) -> None:
    """Wait until the channel is connected.

    A refused connection fails at once instead of being tried until the timeout: a person who
    mistyped a port should not wait to learn it.

    Raises:
        Unreachable: Nothing listens there, what listens does not speak gRPC, or with `tls`, it
            and this side do not accept each other's certificates.
    """
    refused = False
    try:
        async with asyncio.timeout(timeout_s):
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    refused = True
                    break
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        raise Unreachable(f"no gRPC server answers at {address} (waited {timeout_s:g} s)") from None
    if refused and tls:
        raise Unreachable(
            f"no TLS connection to {address}: expected rootserve-server there, with TLS, a "
            "certificate for that name from a trusted authority (--tls-ca), and if it asks for "
            "client certificates, one from its own (--tls-cert)"
        )
    if refused:
        raise Unreachable(
            f"no gRPC server answers at {address}; is rootserve-server running there?"
        )


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn gRPC's exception into `ServerError`."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise ServerError(error.code().name, error.details() or "") from error
