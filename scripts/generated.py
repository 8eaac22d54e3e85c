"""Files that are written by a program: it writes them, or with ``--check`` says which is not current."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path


def write_or_check(made: Mapping[Path, str], command: str, description: str | None) -> int:
    """Write what was ``made``, or check it, as the command line asks; the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="fail if a file is not current")
    check = parser.parse_args().check
    for path, text in made.items():
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path} is not current; run {command}", file=sys.stderr)
            return 1
    return 0
