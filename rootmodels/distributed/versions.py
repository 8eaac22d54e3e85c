"""What is installed on a node. Sent there by value, so that it answers even where this project is missing."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
from pathlib import Path

PACKAGES = ("rootserve", "torch", "ray")
NONE = "none"

Versions = dict[str, str]
"""By name: python, packages, and "sources", which changes with every line of the code that computes."""


def installed() -> Versions:
    """The versions here. A build's own part, as in 2.13.0+cu128, is left out: nodes may have GPUs or not."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[name] = NONE
    return found | {"sources": sources_digest()}


def sources_digest() -> str:
    """First digits of the SHA-256 of all Python files of ``rootmodels``; "none" where it is not installed."""
    spec = importlib.util.find_spec("rootmodels")
    if spec is None or spec.origin is None:
        return NONE
    root = Path(spec.origin).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def look(folders: tuple[str, ...]) -> tuple[Versions, tuple[str, ...]]:
    """What is installed here, and which of ``folders`` are not to be seen from here."""
    return installed(), tuple(folder for folder in folders if not Path(folder).exists())
