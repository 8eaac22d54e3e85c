"""What import contracts cannot tell: the core uses no clock, and nothing but its own file names a family."""

import ast
import sys
from pathlib import Path

import pytest

from rootmodels.variants import FAMILIES, VARIANTS

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


@pytest.mark.parametrize("folder", ["client", "cluster", "pictures", "rootmodels", "server"])
def test_every_file_says_its_job_first(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@pytest.mark.parametrize("folder", ["client", "cluster", "pictures", "rootmodels", "server"])
def test_only_its_own_file_names_a_family(folder: str) -> None:
    """Everything else asks the family, so that one more needs no other file."""
    names = {*FAMILIES, *VARIANTS}
    for path in (ROOT / folder).rglob("*.py"):
        if path.parent == ROOT / "rootmodels/families":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Constant) and node.value in names), (path, node.lineno)
            if isinstance(node, ast.ImportFrom) and path != ROOT / "rootmodels/variants.py":
                assert not (node.module or "").startswith("rootmodels.families"), path
