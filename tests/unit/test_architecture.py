"""What imports cannot be told by name alone: the core uses the standard library and no clock."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPURE = {"asyncio", "datetime", "logging", "os", "random", "socket", "threading", "time"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "server/rootserve/server/core").glob("*.py")), ids=lambda path: path.name
)
def test_the_core_imports_only_itself_and_pure_parts_of_the_standard_library(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            top = name.partition(".")[0]
            allowed = top in sys.stdlib_module_names and top not in IMPURE
            assert allowed or name.startswith("rootserve.server.core"), (
                f"{path.name} imports {name}"
            )


@pytest.mark.parametrize("folder", ["client", "pictures", "rootmodels", "server"])
def test_every_file_says_its_job_first(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
