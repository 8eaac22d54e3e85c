"""What servers to compare with have in common when they compute with the same engine."""

from __future__ import annotations

import argparse
import socket

from rootmodels.weights_info import weights_path
from rootserve.server.engines.base import LoadSpec
from rootserve.server.machine import cpu_count

LARGEST_BATCH = 32


def read_spec(description: str | None) -> LoadSpec:
    """The model that the command line names, to be computed on all processors."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16", "int8"], default="bf16")
    args = parser.parse_args()
    return LoadSpec(args.model, weights_path(args.model), "cpu", cpu_count(), args.precision)


def free_port() -> int:
    """A port that nobody has at this moment, for servers that cannot choose one by themselves."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
