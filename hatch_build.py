"""The scheduler's core as machine code, in wheels that are built with ``HATCH_BUILD_HOOKS_ENABLE=true``.

mypyc compiles ``server/rootserve/server/core`` as it is, by the types that are written there. Such a wheel
has the compiled modules beside their source, and Python imports them instead; where they are not, in a
checkout for one, the same source runs as Python (docs/adr/0024-a-core-that-may-be-compiled.md).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_CORE = Path("rootserve/server/core")


def compile_core(folder: Path) -> list[Path]:
    """Compile the core whose source is at its place in ``folder``; what that made is there too.

    Raises:
        RuntimeError: if that fails, with what mypyc or the compiler said.
    """
    sources = sorted(
        str(file.relative_to(folder))
        for file in (folder / _CORE).glob("*.py")
        if file.name != "__init__.py"
    )
    command = [sys.executable, "-m", "mypyc", "--strict", "--explicit-package-bases", *sources]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    # One module for each source, and at the top what all of them share.
    made = [*folder.glob("*__mypyc.*.so"), *(folder / _CORE).glob("*.so")]
    if done.returncode or len(made) != len(sources) + 1:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise RuntimeError(
            f"the core could not be compiled; has this machine a C compiler and Python.h?\n{said}"
        )
    return made


class CompiledCore(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the compiled core into a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile it, and have it packed; not where its source would be edited beside it."""
        self._temporary = tempfile.TemporaryDirectory(prefix="rootserve-core-")
        if version == "editable":
            return
        folder = Path(self._temporary.name)
        shutil.copytree(Path(self.root, "server", _CORE), folder / _CORE)
        try:
            made = compile_core(folder)
        except RuntimeError:
            self._temporary.cleanup()
            raise
        for file in made:
            build_data["force_include"][str(file)] = str(file.relative_to(folder))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was packed."""
        del version, build_data, artifact_path
        self._temporary.cleanup()
