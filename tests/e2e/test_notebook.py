"""The notebook in examples/ runs, and shows what it was shipped with but for the figures."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat

from tests.support.notebook import shown
from tests.support.server_process import running_server

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "covariance.ipynb"


def test_the_notebook_on_the_matrices(tmp_path: Path) -> None:
    shipped = nbformat.read(NOTEBOOK, as_version=4)
    text = "".join(cell.source for cell in shipped.cells)
    models = text.partition("rootserve-server --models ")[2].split()[0]
    # Few images: what is looked for is there in these as well.
    fewer = ("--replace", "IMAGES = 1000", "IMAGES = 60")
    with running_server("--device", "cpu", "--models", models) as server:
        done = subprocess.run(
            [
                sys.executable, "-m", "tests.support.notebook", NOTEBOOK,
                "--out", tmp_path / "made.ipynb", *fewer,
            ],
            cwd=ROOT, env={**os.environ, "ROOTSERVE_SERVER": server.address},
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = nbformat.read(tmp_path / "made.ipynb", as_version=4)
    assert "IMAGES = 60" in "".join(cell.source for cell in made.cells)
    assert shown(made) == shown(shipped)
    kinds = [kind for kind, _ in shown(shipped)]
    assert kinds.count("stdout") == 6
    assert [words for kind, words in shown(shipped) if kind != "stdout"] == [
        "image/png text/plain"
    ] * 2
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
