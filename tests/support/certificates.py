"""Throw-away certificates for tests, made with the openssl program."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificates:
    """An authority, what it signed, and a stranger's certificate."""

    folder: Path

    def path(self, name: str) -> Path:
        """One of ca, server, client, stranger, with .crt or .key."""
        return self.folder / name

    def content(self, name: str) -> bytes:
        """The PEM text of the file."""
        return self.path(name).read_bytes()


def make_certificates(folder: Path) -> Certificates:
    """Make them: the server's is for 127.0.0.1 and localhost."""
    for name in ("ca", "stranger"):
        _openssl(folder, "req", "-x509", "-days", "2", "-subj", f"/CN={name}", *_CURVE, *_out(name))
    for name in ("server", "client"):
        _openssl(
            folder, "req", "-x509", "-days", "2", "-subj", f"/CN={name}", *_CURVE, *_out(name),
            "-CA", "ca.crt", "-CAkey", "ca.key",
            "-addext", "basicConstraints=critical,CA:FALSE",
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
        )  # fmt: skip
    return Certificates(folder)


def _out(name: str) -> tuple[str, ...]:
    return ("-keyout", f"{name}.key", "-out", f"{name}.crt")


def _openssl(folder: Path, *arguments: str) -> None:
    command = ["openssl", *arguments]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
