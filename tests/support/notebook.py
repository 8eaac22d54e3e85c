"""Notebooks that are shipped with what they show: run in a kernel of their own.

``python -m tests.support.notebook examples/covariance.ipynb`` writes one anew; it asks the server that
``ROOTSERVE_SERVER`` names.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

_PATIENCE_S = 240
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[-+]\d+)?")


def play(path: Path, changes: Mapping[str, str]) -> NotebookNode:
    """The notebook at ``path``, run in its folder; each key of ``changes`` is replaced in its cells.

    Raises:
        CellExecutionError: if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for old, new in changes.items():
            cell.source = cell.source.replace(old, new)
    environment = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        # Between the two processes alone, and on no port.
        kernels = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        client = NotebookClient(notebook, km=kernels, timeout=_PATIENCE_S, record_timing=False)
        made: NotebookNode = client.execute(cwd=str(path.parent), env=environment)
    # Which Python ran it is of no use to whoever reads it.
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    made.metadata = {"kernelspec": python}
    return made


def shown(notebook: NotebookNode) -> list[tuple[str, str]]:
    """What the cells show: kind and text of each output, without numbers; of pictures the kind alone."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                found.append((output.name, " ".join(_NUMBER.sub("N", output.text).split())))
            else:
                found.append((output.output_type, " ".join(sorted(output.data))))
    return found


def main() -> int:
    """Write a notebook anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--out", type=Path, help="default: where it is")
    parser.add_argument("--replace", nargs=2, action="append", default=[], metavar=("OLD", "NEW"))
    args = parser.parse_args()
    nbformat.write(play(args.notebook, dict(args.replace)), args.out or args.notebook)
    return 0


if __name__ == "__main__":
    sys.exit(main())
