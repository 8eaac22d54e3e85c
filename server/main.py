"""The program ``rootserve-server``: read the settings, serve, say in one line why it cannot."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import uvloop

from rootmodels.weights_info import WeightsError
from server import logs
from server.app import StartError, serve
from server.models import ModelSelectionError
from server.options import OptionError, read_settings
from server.security import SecurityError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service, which ends the process with status 0; gives 2 when it could not start."""
    try:
        settings = read_settings(sys.argv[1:] if arguments is None else arguments)
        logs.configure(settings)
        uvloop.run(serve(settings))
    except (
        OptionError,
        ModelSelectionError,
        SecurityError,
        StartError,
        WeightsError,
    ) as error:
        for line in str(error).splitlines():
            print(f"rootserve-server: error: {line}", file=sys.stderr)
        return 2
