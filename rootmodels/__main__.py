"""``python -m rootmodels COMMAND``: work on the networks that needs no server."""

from __future__ import annotations

import sys

from rootmodels import derive_roots, import_network, train, verify
from rootmodels.suggest import command as suggest

COMMANDS = {
    "import": import_network.main,
    "root": derive_roots.main,
    "suggest": suggest.main,
    "train": train.main,
    "verify": verify.main,
}


def main() -> int:
    """Run the command named first, with the arguments after it."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        print(f"usage: python -m rootmodels {{{','.join(COMMANDS)}}} ...", file=sys.stderr)
        return 0 if name in {"-h", "--help"} else 2
    return COMMANDS[name](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
