"""``python -m rootmodels COMMAND``: work on the networks that needs no server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple


class Command(NamedTuple):
    """The module whose ``main`` runs it, and what it does."""

    module: str
    words: str

    def __call__(self, arguments: Sequence[str]) -> int:
        """Run it with these arguments; returns the exit status."""
        # Only the one that is called: torch takes seconds.
        status: int = import_module(self.module).main(arguments)
        return status


COMMANDS = {
    "import": Command("rootmodels.import_network", "make a model file of a torch module"),
    "root": Command("rootmodels.derive_roots", "derive variants of a network in filter groups"),
    "suggest": Command(
        "rootmodels.suggest.command",
        "find the filter groups that the responses of a trained network suggest",
    ),
    "train": Command("rootmodels.train", "train networks, or train them on"),
    "verify": Command("rootmodels.verify", "recompute the accuracy of weights files"),
}


def usage() -> str:
    """What there is to be called."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {words}" for name, (_, words) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m rootmodels COMMAND ...",
            "",
            "Work on the networks that needs no server.",
            "",
            "commands:",
            *lines,
            "",
            "python -m rootmodels COMMAND --help tells the rest",
        ]
    )


def main() -> int:
    """Run the command named first, with the arguments after it."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in {"-h", "--help"}:
        print(usage())
        return 0
    if name not in COMMANDS:
        came = f"no command {name!r}\n\n" if name else ""
        print(f"{came}{usage()}", file=sys.stderr)
        return 2
    return COMMANDS[name](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
