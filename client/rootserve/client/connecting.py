"""The options that every command of `rootserve` has to reach a server: where, how protected, how patient."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from rootserve.client.address import DEFAULT_ADDRESS
from rootserve.client.credentials import Connection, CredentialFiles
from rootserve.client.shared_options import with_options

_File = Path | None


def _options(  # noqa: PLR0913 - one per option
    *,
    server: Annotated[
        str,
        typer.Option(
            envvar="ROOTSERVE_SERVER", metavar="HOST:PORT", help="Where the server listens."
        ),
    ] = DEFAULT_ADDRESS,
    tls: Annotated[
        bool, typer.Option("--tls", help="Speak TLS and trust the system's authorities.")
    ] = False,
    tls_ca: Annotated[
        _File,
        typer.Option(metavar="FILE", help="Speak TLS and trust these authorities (PEM)."),
    ] = None,
    tls_cert: Annotated[
        _File,
        typer.Option(metavar="FILE", help="Mutual TLS: certificate of this client (PEM)."),
    ] = None,
    tls_key: Annotated[
        _File, typer.Option(metavar="FILE", help="Mutual TLS: its private key (PEM).")
    ] = None,
    token_file: Annotated[
        _File,
        typer.Option(
            metavar="FILE", help="Send the token in this file [default: that in $ROOTSERVE_TOKEN]."
        ),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(metavar="S", min=0.0, help="Wait up to S seconds until the server serves."),
    ] = None,
) -> Connection:
    files = CredentialFiles(tls=tls, ca=tls_ca, certificate=tls_cert, key=tls_key, token=token_file)
    connection = Connection(server, files.read())
    if wait is not None:
        # Imported here, so that the help need not wait for gRPC.
        from rootserve.client.waiting import wait_until_serving  # noqa: PLC0415

        asyncio.run(wait_until_serving(connection, wait))
    return connection


def connecting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options; it gets what they say as its argument `connection`."""
    return with_options(command, _options, "connection")
