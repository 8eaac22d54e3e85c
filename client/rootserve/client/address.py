"""Where a server listens: parsing and writing HOST:PORT."""

import re
from dataclasses import dataclass

from rootserve.client.errors import InputError

DEFAULT_ADDRESS = "127.0.0.1:8001"

_HOST_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Address:
    """A host name or IP address (IPv6 without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the server runs on this machine."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")


def parse_address(text: str) -> Address:
    """Parse HOST:PORT, the host being a name, an IPv4 address or an IPv6 address in brackets.

    Raises:
        InputError: The text is not of that form, or the port is not within 1..65535.
    """
    match = _HOST_PORT.fullmatch(text.strip())
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise InputError(
            f"server address '{text}': expected HOST:PORT with a port from 1 to 65535, "
            f"such as {DEFAULT_ADDRESS}"
        )
    return Address(match["ipv6"] or match["host"], int(match["port"]))
