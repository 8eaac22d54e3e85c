"""The program ``rootserve-server``: read the settings, serve, say in one line why it cannot."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Sequence

import uvloop

from rootmodels.family import FamilyError
from rootmodels.weights_info import WeightsError
from rootserve.server import logs
from rootserve.server.app import serve
from rootserve.server.checking import check
from rootserve.server.models import ModelSelectionError
from rootserve.server.options import OptionError, read_options
from rootserve.server.security import SecurityError
from rootserve.server.specs import StartError
from rootserve.server.streams import open_closed_streams
from rootserve.server.wire.listening import ListenError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service, which ends the process; gives 2 when it could not start. Or only look."""
    open_closed_streams()
    _allow_descriptors()
    try:
        options = read_options(sys.argv[1:] if arguments is None else arguments)
        if options.check_only:
            return check(options)
        logs.configure(options.settings)
        uvloop.run(serve(options.settings))
    except (
        FamilyError,
        OptionError,
        ModelSelectionError,
        SecurityError,
        ListenError,
        StartError,
        WeightsError,
    ) as error:
        for line in str(error).splitlines():
            print(f"rootserve-server: error: {line}", file=sys.stderr)
        return 2


def _allow_descriptors() -> None:
    """As many as the administrator permits: each connection takes one, and shells start with few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
