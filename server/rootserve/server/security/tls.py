"""Credentials for TLS and mutual TLS from PEM files, checked before gRPC sees them."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import grpc

from rootserve.server.security import SecurityError

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----")
_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")


def server_credentials(cert: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """What a secure port needs; with ``client_ca``, only callers with a certificate of it connect.

    gRPC itself says nothing of a file it cannot use: its handshakes fail, one by one.

    Raises:
        SecurityError: naming the setting, the file and what was expected.
    """
    chain = _read("tls_cert", cert, _CERTIFICATE, "a PEM certificate")
    _check_certificates("tls_cert", cert)
    secret = _read("tls_key", key, _KEY, "a PEM private key")
    _check_key(cert, key)
    roots = None
    if client_ca is not None:
        roots = _read("tls_client_ca", client_ca, _CERTIFICATE, "a PEM certificate")
        _check_certificates("tls_client_ca", client_ca)
    return grpc.ssl_server_credentials(
        [(secret, chain)], root_certificates=roots, require_client_auth=roots is not None
    )


def _read(setting: str, path: Path, expected: re.Pattern[bytes], what: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SecurityError(
            f"{setting}: {path} cannot be read: {error.strerror}; expected {what}"
        ) from None
    if not expected.search(content):
        raise SecurityError(f"{setting}: {path} holds no such thing; expected {what}")
    return content


def _check_certificates(setting: str, path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cafile=path)
    except OSError as error:  # of which ssl.SSLError is one
        raise SecurityError(
            f"{setting}: {path} is damaged ({_reason(error)}); expected a PEM certificate"
        ) from None


def _check_key(cert: Path, key: Path) -> None:
    encrypted = False

    def no_password() -> str:
        nonlocal encrypted
        encrypted = True
        return ""

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key, password=no_password)
    except OSError as error:
        if encrypted:
            problem = "is encrypted; expected a PEM private key without a password"
        elif _reason(error) == "KEY_VALUES_MISMATCH":
            problem = f"does not fit tls_cert, {cert}; expected the key it was made with"
        else:
            problem = f"cannot be used ({_reason(error)}); expected the PEM private key of {cert}"
        raise SecurityError(f"tls_key: {key} {problem}") from None


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
