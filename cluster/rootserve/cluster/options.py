"""What the proxy is to be like: checked when it is made, so that nothing else has to."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rootserve.client.address import Address, parse_address
from rootserve.client.errors import InputError

HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """Callers speak TLS with this certificate, and show one of ``client_ca`` if that is there."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Servers speak TLS with certificates of ``ca``, and get ``cert`` if they ask the proxy for one.

    ``name`` is what their certificates say; without it that they are of ``ca`` is all that is asked.
    """

    ca: Path
    name: str | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class EnvoyOptions:
    """A proxy before ``servers``.

    Raises:
        InputError: if they do not fit together.
    """

    servers: tuple[Address, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    metrics_port: int = 8003
    admin_port: int = 9901
    listener_tls: ListenerTls | None = None
    server_tls: ServerTls | None = None
    health_interval_s: float = 1.0
    ping_interval_s: float = 5.0
    max_retry_mb: int = 64
    max_heap_mb: int = 1024
    access_log: Path | None = None

    def __post_init__(self) -> None:
        ports = {
            "--port": self.port,
            "--metrics-port": self.metrics_port,
            "--admin-port": self.admin_port,
        }
        for option, port in ports.items():
            if not 1 <= port <= HIGHEST_PORT:
                raise InputError(f"{option}: {port} came, expected a port from 1 to {HIGHEST_PORT}")
        twice = [port for port, count in Counter(ports.values()).items() if count > 1]
        if twice:
            options = " and ".join(option for option, port in ports.items() if port == twice[0])
            raise InputError(f"{options}: {twice[0]} came for both, expected a port for each")
        if is_name(self.host):
            raise InputError(f"--host: {self.host!r} came, expected an IP address such as 0.0.0.0")
        for option, seconds in (
            ("--health-interval-s", self.health_interval_s),
            ("--ping-interval-s", self.ping_interval_s),
        ):
            if not (math.isfinite(seconds) and 0.1 <= seconds <= 3600):
                raise InputError(f"{option}: {seconds:g} came, expected 0.1 to 3600 seconds")
        for option, megabytes, most in (
            ("--max-retry-mb", self.max_retry_mb, 2047),
            ("--max-heap-mb", self.max_heap_mb, 2**20),
        ):
            if not 1 <= megabytes <= most:
                raise InputError(f"{option}: {megabytes} came, expected 1 to {most} MiB")
        self._check_servers()
        self._check_files()

    def listens_at(self, port: int) -> Address:
        """Where callers find ``port`` of the proxy."""
        return Address(self.host, port)

    def _check_servers(self) -> None:
        if not self.servers:
            raise InputError("--servers: none came, expected HOST:PORT,HOST:PORT,...")
        for server, count in Counter(self.servers).items():
            if count > 1:
                raise InputError(f"--servers: {server} came {count} times, expected each once")
        own = Address(self.host, self.port)
        for server in self.servers:
            same_host = server.host == self.host or (server.is_loopback and own.is_loopback)
            if same_host and server.port == self.port:
                raise InputError(
                    f"--port: {self.port} is the port of the server {server}; expected another, on which "
                    "callers find the proxy"
                )

    def _check_files(self) -> None:
        listener, server = self.listener_tls, self.server_tls
        if server is not None and (server.cert is None) != (server.key is None):
            raise InputError("--servers-cert and --servers-key: one came, expected both or none")
        files = {
            "--tls-cert": listener and listener.cert,
            "--tls-key": listener and listener.key,
            "--tls-client-ca": listener and listener.client_ca,
            "--servers-ca": server and server.ca,
            "--servers-cert": server and server.cert,
            "--servers-key": server and server.key,
        }
        for option, path in files.items():
            if path is not None and "\n" in str(path):
                raise InputError(f"{option}: {str(path)!r} came, expected a path in one line")


def parse_servers(text: str) -> tuple[Address, ...]:
    """The addresses of HOST:PORT,HOST:PORT,...

    Raises:
        InputError: if one of them is none.
    """
    parts: Sequence[str] = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise InputError(f"--servers: {text!r} came, expected HOST:PORT,HOST:PORT,...")
    try:
        return tuple(parse_address(part) for part in parts)
    except InputError as error:
        raise InputError(f"--servers: {error}") from None


def is_name(host: str) -> bool:
    """Whether ``host`` is a name, which DNS has to resolve, and no IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
