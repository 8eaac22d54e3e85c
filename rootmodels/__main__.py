"""``python -m rootmodels COMMAND``: work on the networks that needs no server."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "import": ("rootmodels.import_network", "make a model file of a torch module"),
    "root": ("rootmodels.derive_roots", "derive variants of a network in filter groups"),
    "suggest": (
        "rootmodels.suggest.command",
        "find the filter groups that the responses of a trained network suggest",
    ),
    "train": ("rootmodels.train", "train networks, or train them on"),
    "verify": ("rootmodels.verify", "recompute the accuracy of weights files"),
}
"""Of each command the module whose ``main`` runs it, and what it does."""


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
    # Only the one that is called: torch takes seconds.
    status: int = import_module(COMMANDS[name][0]).main(sys.argv[2:])
    return status


if __name__ == "__main__":
    sys.exit(main())
