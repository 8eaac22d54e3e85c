"""Why a server may not be reached: a proxy on the way, or TLS that it wants."""

import os
import socket
import ssl
from typing import Any

from rootserve.client.address import Address

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_DIRECT = ("no_grpc_proxy", "no_proxy")
_PROBE_S = 1.0


def proxy() -> str | None:
    """The variable that names the proxy gRPC would go through; None without one."""
    return next((name for name in _PROXIES if os.environ.get(name)), None)


def is_this_machine(address: Address) -> bool:
    """Whether the host is one of this machine's own names or addresses, which takes a look at DNS."""
    if address.is_loopback:
        return True
    try:
        found = socket.getaddrinfo(address.host, None, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return any(_is_own(family, target) for family, _, _, _, target in found)


def _is_own(family: socket.AddressFamily, target: tuple[Any, ...]) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Only own addresses can be bound; nothing is sent.
            probe.bind((target[0], 0, *target[2:]))
        except OSError:
            return False
    return True


def through_proxy(address: Address) -> str:
    """Words about the proxy on the way, if there is one."""
    name = proxy()
    hosts = ",".join(os.environ.get(each) or "" for each in _DIRECT).split(",")
    direct = any(host.strip() and address.host.endswith(host.strip()) for host in hosts)
    if name is None or direct or is_this_machine(address):
        return ""
    return (
        f" (the way there goes through the proxy that ${name} names: put {address.host} into "
        "no_proxy for a direct one)"
    )


def speaks_tls(address: Address) -> bool:
    """Whether what listens there begins a TLS connection; it is told nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((address.host, address.port), _PROBE_S) as plain,
            context.wrap_socket(plain, server_hostname=address.host),
        ):
            return True
    except OSError:
        return False
