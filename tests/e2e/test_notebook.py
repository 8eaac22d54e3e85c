"""The notebook in examples/ runs, and shows what it was shipped with but for the figures."""

from pathlib import Path

import nbformat

from tests.support.notebook import play, shown
from tests.support.server_process import running_server

NOTEBOOK = Path(__file__).parents[2] / "examples" / "covariance.ipynb"


def test_the_notebook_on_the_matrices() -> None:
    shipped = nbformat.read(NOTEBOOK, as_version=4)
    text = "".join(cell.source for cell in shipped.cells)
    models = text.partition("rootserve-server --models ")[2].split()[0]
    with running_server("--device", "cpu", "--models", models) as server:
        # Few images: what is looked for is there in these as well.
        made = play(
            NOTEBOOK, {"ROOTSERVE_SERVER": server.address}, {"IMAGES = 1000": "IMAGES = 60"}
        )
    assert shown(made) == shown(shipped)
    kinds = [kind for kind, _ in shown(shipped)]
    assert kinds.count("stdout") == 6
    assert [words for kind, words in shown(shipped) if kind != "stdout"] == [
        "image/png text/plain"
    ] * 2
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
