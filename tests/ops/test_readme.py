"""What the README says of the models is what the table and the weights say."""

import re
import shlex
from pathlib import Path

import pytest

from rootmodels.cost import network_cost
from rootmodels.families.resnet50 import RESNET50
from rootmodels.variants import VARIANTS
from rootmodels.weights_info import read_info, weights_path
from rootserve.client.cli import app

ROOT = Path(__file__).parents[2]


def model_row(name: str) -> list[str]:
    variant = VARIANTS[name]
    cost = network_cost(variant)
    orig = network_cost(VARIANTS["nin-orig"])
    path = weights_path(name)
    return [
        f"`{name}`",
        ", ".join(map(str, variant.groups)),
        f"{cost.params:,}",
        f"{cost.macs:,}",
        f"{orig.flops_paper / cost.flops_paper:.2f}",
        f"{variant.paper.accuracy:.4f}" if variant.paper else "-",
        f"{read_info(path).accuracy:.4f}" if path.exists() else "-",
    ]


def test_the_table_of_models_is_true() -> None:
    text = (ROOT / "README.md").read_text()
    section = text.partition("<!-- models")[2].partition("<!-- end of models")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows == [model_row(name) for name in VARIANTS if name.startswith("nin")]


def test_the_table_of_the_other_family_is_true() -> None:
    text = (ROOT / "docs" / "resnet50.md").read_text()
    section = text.partition("<!-- resnet50 models")[2].partition("<!-- end of resnet50")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    orig = network_cost(RESNET50.variants[0])
    for row, variant in zip(rows, RESNET50.variants, strict=True):
        cost, paper = network_cost(variant), variant.paper
        assert row == [
            f"`{variant.name}`",
            ", ".join(map(str, variant.groups)),
            f"{cost.params:,}",
            f"{cost.macs:,}",
            f"{orig.flops_paper / cost.flops_paper:.2f}",
            f"{paper.accuracy:.4f}" if paper else "-",
            f"{paper.top5:.4f}" if paper else "-",
        ]


def test_links_and_pictures_exist() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_family_that_is_shown_is_the_one_that_is_tested() -> None:
    page = (ROOT / "docs" / "families.md").read_text()
    shown = re.findall(r"```(toml|python)\n(.*?)```", page, re.DOTALL)
    assert len(shown) == 3
    files = {"toml": "pyproject.toml", "python": "vgg11.py"}
    for language, block in shown:
        assert block in (ROOT / "examples" / "vgg11" / files[language]).read_text()


def test_the_commands_under_use_it_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    section = (ROOT / "README.md").read_text().partition("## Use it")[2].partition("\n### ")[0]
    lines = [line.partition(" #")[0] for line in section.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("rootserve ")]
    assert len(commands) >= 8
    for words in commands:
        # What follows the names of a command and its group are its arguments.
        names = [word for word in words[:2] if word in {"analyze", "covariance", "profile"}]
        app([*(names or words[:1]), "--help"], prog_name="rootserve", standalone_mode=False)
        told = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert f"{option} " in told, (words, option)


def test_its_environment_is_not_that_of_make() -> None:
    """Or installing as the README says would replace the editable installation of `make demo`."""
    section = (ROOT / "README.md").read_text().partition("## Use it")[2].partition("\n## ")[0]
    blocks = "".join(re.findall(r"```\n(.*?)```", section, re.DOTALL))
    (made,) = re.findall(r"-m venv (\S+)", blocks)
    (installed,) = re.findall(r"(\S+)/bin/pip install", blocks)
    assert made == installed
    assert ".venv/" not in blocks
