"""The service whose scheduler is recorded: ``python -m tests.support.recorded_service FILE COMMAND``.

It stands before the command of a server and does what that would. The file gets the scheduler's limits, and
then each call as soon as it is answered.
"""

import pickle
import sys
from pathlib import Path
from typing import Any

from rootserve.client.simulation.replay import Call, Recorder
from rootserve.server import app
from rootserve.server.core.limits import Limits
from rootserve.server.main import main


class _Calls(list[Call]):
    """Calls that go to a file."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__()
        self._file = path.open("wb", buffering=0)
        pickle.dump(limits, self._file)

    def append(self, call: Call) -> None:
        pickle.dump(call, self._file)


def recorded(path: Path) -> tuple[Limits, list[Call]]:
    """What such a file says."""
    calls: list[Call] = []
    with path.open("rb") as file:
        limits: Limits = pickle.load(file)
        while True:
            try:
                calls.append(pickle.load(file))
            except EOFError:
                return limits, calls


class _Recorder(Recorder):
    def __init__(self, limits: Limits, *args: Any) -> None:
        super().__init__(limits, *args)
        self.calls = _Calls(Path(sys.argv[1]), limits)


if __name__ == "__main__":
    app.Scheduler = _Recorder  # type: ignore[misc]
    sys.exit(main(sys.argv[5:]))
