"""How a connection is protected: TLS, a client certificate, a bearer token; read from files."""

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rootserve.client.errors import InputError

TOKEN_VARIABLE = "ROOTSERVE_TOKEN"  # noqa: S105 - the name of it

_TOKEN = re.compile(r"[!-~]+")  # what a metadata value can carry, without spaces
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a caller shows and what it trusts. Neither keys nor tokens appear in its repr.

    Args:
        tls: Whether to speak TLS.
        roots: PEM of the certificate authorities trusted; None trusts those gRPC comes with.
        certificate: PEM of the client's certificate chain, for mutual TLS.
        key: PEM of its private key.
        token: Sent with every call.
    """

    tls: bool = False
    roots: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


PLAINTEXT = Credentials()
"""No TLS, no token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialFiles:
    """Where credentials come from, as the options of the command line have it."""

    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: Path | None = None

    def read(self, environment: Mapping[str, str] = os.environ) -> Credentials:
        """Read the files. Without one for the token, ROOTSERVE_TOKEN is taken.

        Raises:
            InputError: One cannot be used; the message names the option and the file.
        """
        certificate, key = self._read_identity()
        return Credentials(
            tls=bool(self.tls or self.ca or certificate),
            roots=self._read_roots(),
            certificate=certificate,
            key=key,
            token=self._read_token(environment),
        )

    def _read_identity(self) -> tuple[bytes, bytes] | tuple[None, None]:
        if self.certificate is None and self.key is None:
            return None, None
        if self.certificate is None or self.key is None:
            raise InputError("expected both --tls-cert and --tls-key, or neither")
        certificate = _read_certificates("--tls-cert", self.certificate)
        key = _read("--tls-key", self.key, "a PEM private key")

        def no_password() -> str:
            return ""

        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_cert_chain(self.certificate, self.key, password=no_password)
        except OSError:
            raise InputError(
                f"--tls-key: {self.key} is not the key of {self.certificate}; "
                "expected its PEM private key, without a password"
            ) from None
        return certificate, key

    def _read_roots(self) -> bytes | None:
        if self.ca is not None:
            return _read_certificates("--tls-ca", self.ca)
        system = ssl.get_default_verify_paths().cafile
        if system is None or not (self.tls or self.certificate):
            return None
        return _read_certificates("the system's roots", Path(system))

    def _read_token(self, environment: Mapping[str, str]) -> str | None:
        if self.token is None:
            source, text = TOKEN_VARIABLE, environment.get(TOKEN_VARIABLE, "").strip()
            if not text:
                return None
        else:
            source = f"--token-file: {self.token}"
            text = _read("--token-file", self.token, "a file with one token").decode(
                "utf-8", "replace"
            )
        token = text.strip()
        if not _TOKEN.fullmatch(token):
            raise InputError(
                f"{source}: expected one token, ASCII without spaces, and nothing else"
            )
        return token


def _read_certificates(option: str, path: Path) -> bytes:
    content = _read(option, path, "a PEM certificate")
    try:
        if _CERTIFICATE.encode() not in content:
            raise ssl.SSLError
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError:
        raise InputError(
            f"{option}: {path} has no readable certificate; expected PEM, '{_CERTIFICATE}'"
        ) from None
    return content


def _read(option: str, path: Path, expected: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{option}: {path} cannot be read ({error.strerror}); expected {expected}"
        ) from None


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a server listens, as HOST:PORT, and how the connection to it is protected."""

    server: str
    credentials: Credentials = PLAINTEXT
