"""The program `rootserve-cluster`: its options, its errors, its exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rootserve.client.errors import InputError
from rootserve.client.exit_codes import ExitCode
from rootserve.cluster.envoy_config import configuration
from rootserve.cluster.envoy_process import (
    check_configuration,
    check_ports,
    envoy_program,
    run_envoy,
)
from rootserve.cluster.options import EnvoyOptions, ListenerTls, ServerTls, parse_servers

_DESCRIPTION = "Many Rootserve servers as one; see docs/cluster.md."
_ENVOY = """\
Write a commented configuration of Envoy, the proxy before Rootserve servers; or start Envoy with it.
"""
_EPILOG = """\
examples:
  rootserve-cluster envoy --servers 10.0.0.1:8001,10.0.0.2:8001 --host 0.0.0.0 --out envoy.yaml
  rootserve-cluster envoy --servers rootserve.default.svc:8001 --run      (every address of that name)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; gives the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    args = _parser().parse_args(given)
    try:
        _envoy(args, shlex.join(["rootserve-cluster", *given]))
    except InputError as error:
        print(f"rootserve-cluster: error: {error}", file=sys.stderr)
        return ExitCode.USAGE
    return ExitCode.OK


def _envoy(args: argparse.Namespace, command: str) -> None:
    options = _options(args)
    text = configuration(options, command)
    if not args.run:
        _write(text, args.out)
        return
    program = envoy_program()
    _check(program, text)
    check_ports(options)
    # Scripts read this line, as they do the server's.
    print(
        f"listening grpc={options.listens_at(options.port)} "
        f"metrics={options.listens_at(options.metrics_port)}",
        flush=True,
    )
    run_envoy(program, text, args.threads)


def _check(program: Path, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "envoy.yaml"
        file.write_text(text)
        check_configuration(program, file)


def _write(text: str, out: Path | None) -> None:
    """To ``out``, all of it or nothing; to standard output without."""
    if out is None:
        with contextlib.suppress(BrokenPipeError):
            print(text, end="", flush=True)
        return
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_text(text)
        partial.replace(out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"--out: {out} cannot be written: {error.strerror}") from None


def _options(args: argparse.Namespace) -> EnvoyOptions:
    return EnvoyOptions(
        servers=parse_servers(args.servers),
        host=args.host,
        port=args.port,
        metrics_port=args.metrics_port,
        admin_port=args.admin_port,
        listener_tls=_listener_tls(args),
        server_tls=_server_tls(args),
        health_interval_s=args.health_interval_s,
        ping_interval_s=args.ping_interval_s,
        max_retry_mb=args.max_retry_mb,
        max_heap_mb=args.max_heap_mb,
        access_log=args.access_log,
    )


def _listener_tls(args: argparse.Namespace) -> ListenerTls | None:
    if args.tls_cert is None and args.tls_key is None and args.tls_client_ca is None:
        return None
    if args.tls_cert is None or args.tls_key is None:
        raise InputError("--tls-cert and --tls-key: one is missing, expected both")
    return ListenerTls(args.tls_cert, args.tls_key, args.tls_client_ca)


def _server_tls(args: argparse.Namespace) -> ServerTls | None:
    rest = (args.servers_name, args.servers_cert, args.servers_key)
    if args.servers_ca is None:
        if any(one is not None for one in rest):
            raise InputError(
                "--servers-ca: did not come, but another option of the servers' TLS; expected the "
                "PEM file with the authority of their certificates"
            )
        return None
    return ServerTls(args.servers_ca, *rest)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rootserve-cluster", description=_DESCRIPTION, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    envoy = commands.add_parser(
        "envoy",
        help="the proxy before many servers",
        description=_ENVOY,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_places(envoy)
    _add_tls(envoy)
    _add_behaviour(envoy)
    what = envoy.add_mutually_exclusive_group()
    what.add_argument("--out", type=Path, metavar="FILE", help="write here, not to standard output")
    what.add_argument("--run", action="store_true", help="become Envoy with it, and write nothing")
    return parser


def _add_places(envoy: argparse.ArgumentParser) -> None:
    group = envoy.add_argument_group("places")
    group.add_argument(
        "--servers",
        required=True,
        metavar="HOST:PORT,...",
        help="the servers; of a name, every address that DNS has for it",
    )
    group.add_argument(
        "--host", default=EnvoyOptions.host, help="address to listen on (default: %(default)s)"
    )
    for option, default, text in (
        ("--port", EnvoyOptions.port, "port for callers"),
        ("--metrics-port", EnvoyOptions.metrics_port, "port of /metrics and /ready"),
        ("--admin-port", EnvoyOptions.admin_port, "port of Envoy's admin interface, on 127.0.0.1"),
    ):
        group.add_argument(
            option, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
    group.add_argument(
        "--access-log", type=Path, metavar="FILE", help="log requests here, not to standard output"
    )


def _add_tls(envoy: argparse.ArgumentParser) -> None:
    group = envoy.add_argument_group("TLS: of callers, and of the servers")
    for option, text in (
        ("--tls-cert", "PEM file with the proxy's certificate chain; callers then speak TLS"),
        ("--tls-key", "PEM file with its private key"),
        ("--tls-client-ca", "PEM file with authorities; only callers with a certificate of theirs"),
        (
            "--servers-ca",
            "PEM file with the authority of the servers' certificates; they speak TLS",
        ),
        ("--servers-cert", "PEM file with the certificate that the servers ask the proxy for"),
        ("--servers-key", "PEM file with its private key"),
    ):
        group.add_argument(option, type=Path, metavar="FILE", help=text)
    group.add_argument(
        "--servers-name",
        metavar="NAME",
        help="the DNS name that the servers' certificates must have",
    )


def _add_behaviour(envoy: argparse.ArgumentParser) -> None:
    group = envoy.add_argument_group("behaviour")
    group.add_argument(
        "--health-interval-s",
        type=float,
        default=EnvoyOptions.health_interval_s,
        metavar="S",
        help="how often each server is asked for its health (default: %(default)s)",
    )
    group.add_argument(
        "--ping-interval-s",
        type=float,
        default=EnvoyOptions.ping_interval_s,
        metavar="S",
        help="how often a connection to a server is pinged; no more often than its min_ping_interval_s "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--max-retry-mb",
        type=int,
        default=EnvoyOptions.max_retry_mb,
        metavar="N",
        help="largest request that can be sent to another server, in MiB (default: %(default)s)",
    )
    group.add_argument(
        "--max-heap-mb",
        type=int,
        default=EnvoyOptions.max_heap_mb,
        metavar="N",
        help="memory at which Envoy refuses requests, in MiB (default: %(default)s)",
    )
    group.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="with --run (default: one per processor)",
    )
