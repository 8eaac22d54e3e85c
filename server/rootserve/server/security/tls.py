"""Credentials for TLS and mutual TLS from PEM files: checked before gRPC sees them, and followed."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import threading
from pathlib import Path

import grpc

from rootserve.server.security import SecurityError

_log = logging.getLogger(__name__)

_LOOK_S = 1.0
"""How often the files are looked at."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----")
_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")


_Fingerprint = tuple[tuple[int, int, int] | None, ...]


class TlsFiles:
    """The certificate, its key, and with ``client_ca`` the authorities of which a caller must have one.

    Read on creation. While :meth:`follow` runs, files that changed are read again, and new connections get
    what they hold; files that cannot be used, or do not fit together yet, change nothing.

    Raises:
        SecurityError: naming the setting, the file and what was expected.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._seen = self._look()
        self._initial = _read_configuration(cert, key, client_ca)
        self._fresh: grpc.ServerCertificateConfiguration | None = None
        self._taking = threading.Lock()
        self._trouble = ""

    def credentials(self) -> grpc.ServerCredentials:
        """What a secure port needs."""
        return grpc.dynamic_ssl_server_credentials(
            self._initial,
            self._take_fresh,  # type: ignore[arg-type]  # None is what gRPC documents for no change
            require_client_authentication=self._client_ca is not None,
        )

    async def follow(self) -> None:
        """Look at the files for ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(self.look_again)

    def look_again(self) -> None:
        """Read the files again if they have changed."""
        seen = self._look()
        if seen == self._seen:
            return
        try:
            read = _read_configuration(self._cert, self._key, self._client_ca)
        except SecurityError as error:
            # Once for each trouble: one file of two is replaced first, and that takes no second.
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.warning("%s; new connections get what was read before", error)
            return
        with self._taking:
            self._fresh = read
        self._seen, self._trouble = seen, ""
        _log.info("TLS files have changed and were read: new connections get what they hold now")

    def _take_fresh(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC before each handshake, in a thread of its own; None if nothing has changed."""
        with self._taking:
            fresh, self._fresh = self._fresh, None
        return fresh

    def _look(self) -> _Fingerprint:
        """What changes when a file does; a link is followed."""
        paths = (self._cert, self._key, self._client_ca)
        return tuple(_fingerprint(path) for path in paths if path is not None)


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read_configuration(
    cert: Path, key: Path, client_ca: Path | None
) -> grpc.ServerCertificateConfiguration:
    """What the files hold.

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
    return grpc.ssl_server_certificate_configuration([(secret, chain)], root_certificates=roots)


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
