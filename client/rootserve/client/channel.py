"""gRPC channels to a server, and its failures as the client's own exceptions."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from rootserve.client.address import Address
from rootserve.client.bearer import BearerChannel
from rootserve.client.credentials import PLAINTEXT, Credentials
from rootserve.client.errors import Promise, ServerError, Unreachable
from rootserve.client.reach import is_this_machine, proxy, speaks_tls, through_proxy

# gRPC's own limit of 4 MiB is passed by some 1,400 CIFAR images.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
_INFEASIBLE = ("rootserve", "DEADLINE_INFEASIBLE")

# States after which waiting for a connection tells nothing new. A refused one is no reason to try on:
# a person who mistyped a port should not wait to learn it.
_DECIDED = frozenset({grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE})


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
        ("grpc.enable_http_proxy", 0 if proxy() is None or is_this_machine(address) else 1),
    ]


def _tls_credentials(credentials: Credentials) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(credentials.roots, credentials.key, credentials.certificate)


def open_aio_channel(address: Address, credentials: Credentials = PLAINTEXT) -> grpc.aio.Channel:
    """Open a channel for asyncio. It connects at its first call and sends the token with each."""
    options = _channel_options(address)
    if credentials.tls:
        tls = _tls_credentials(credentials)
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

    A refused connection fails at once instead of being tried until the timeout.

    Raises:
        Unreachable: Nothing listens there, what listens does not speak gRPC, or with `tls`, it
            and this side do not accept each other's certificates.
    """
    state = channel.get_state(try_to_connect=True)
    try:
        async with asyncio.timeout(timeout_s):
            while state not in _DECIDED:
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        pass
    # Looks into what is wrong may take a second.
    await asyncio.to_thread(_check_connected, state, address, timeout_s, tls=tls)


def _check_connected(
    state: grpc.ChannelConnectivity, address: Address, timeout_s: float, *, tls: bool
) -> None:
    if state is grpc.ChannelConnectivity.READY:
        return
    through = through_proxy(address)
    if state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
        raise Unreachable(f"no gRPC server answers at {address} (waited {timeout_s:g} s){through}")
    if tls:
        raise Unreachable(
            f"no TLS connection to {address}: expected rootserve-server there, with TLS, a "
            "certificate for that name from a trusted authority (--tls-ca), and if it asks for "
            f"client certificates, one from its own (--tls-cert){through}"
        )
    if not through and speaks_tls(address):
        raise Unreachable(
            f"what listens at {address} wants TLS, and was spoken to without it: give --tls, or "
            "--tls-ca FILE with the authority of its certificate"
        )
    raise Unreachable(
        f"no gRPC server answers at {address}; is rootserve-server running there?{through}"
    )


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn gRPC's exception into `ServerError`."""
    try:
        yield
    except grpc.RpcError as error:
        # Every error of a call is a call as well, in both of gRPC's libraries.
        call = cast("grpc.Call", error)
        retry_after_s, promise = _details(call.trailing_metadata())
        code, words = call.code().name, call.details() or ""
        raise ServerError(code, words, retry_after_s, promise) from error


def _details(
    metadata: Iterable[tuple[str, str | bytes]] | None,
) -> tuple[float | None, Promise | None]:
    """What `google.rpc.RetryInfo` and `ErrorInfo` in a status say; None for what cannot be read."""
    retry, info = error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
    retry_after_s: float | None = None
    promise: Promise | None = None
    for key, value in metadata or ():
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        status = status_pb2.Status()
        try:
            status.ParseFromString(value)
            for detail in status.details:
                if detail.Unpack(retry):
                    retry_after_s = max(0.0, float(retry.retry_delay.ToNanoseconds()) / 1e9)
                elif detail.Unpack(info) and (info.domain, info.reason) == _INFEASIBLE:
                    promise = _promise(info.metadata)
        except (DecodeError, ValueError):
            break
    return retry_after_s, promise


def _promise(metadata: Mapping[str, str]) -> Promise:
    """What could have been promised.

    Raises:
        ValueError: It is not told in numbers.
    """
    earliest_ms, floor = metadata.get("earliest_ms"), metadata.get("accuracy_floor_fitting")
    return Promise(
        metadata.get("model", ""),
        None if earliest_ms is None else float(earliest_ms) * 1e-3,
        None if floor is None else float(floor),
    )
