"""Whether the service can be reached by others without protection, in plain words."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to ``host``. A name but localhost counts as reachable."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def exposure_warning(
    host: str, *, has_tls: bool, has_client_ca: bool, has_tokens: bool
) -> str | None:
    """What an operator should know about listening on ``host``; None when there is nothing."""
    if is_loopback(host):
        return None
    if not has_client_ca and not has_tokens:
        return (
            f"listening on {host} without tokens or client certificates: whoever reaches this "
            "address can use the service; see --token-file and --tls-client-ca"
        )
    if has_tokens and not has_tls:
        return (
            f"listening on {host} with tokens but without TLS: whoever can read the network can "
            "read the tokens; see --tls-cert"
        )
    return None
