"""The commands of docs/reproduce.md, in their order, on few images: they run, and show what the page says."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess, running_server

PAGE = (Path(__file__).parents[2] / "docs/reproduce.md").read_text()
PROGRAMS = {
    "python": [sys.executable],
    "rootserve": [sys.executable, "-m", "rootserve.client"],
}
FEWER = {"10000": "100"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands of the page are given."""
    return tmp_path_factory.mktemp("reproduce")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    found = re.search(r"^rootserve-server .*--models (\S+)$", PAGE, re.MULTILINE)
    assert found
    with running_server("--device", "cpu", "--models", found[1]) as started:
        yield started


def follow(title: str, place: Path, server: ServerProcess, data: Path) -> str:
    """Give the commands under this title; its text."""
    section = PAGE.partition(f"\n## {title}")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert blocks
    for program, *arguments in (shlex.split(one) for text in blocks for one in text.splitlines()):
        line = [*PROGRAMS[program]]
        line += [FEWER.get(each, str(data) if each == "DIR" else each) for each in arguments]
        if program == "rootserve":
            line += ["--server", server.address]
        if "table8" in arguments:
            line += ["--rounds", "1"]
        done = subprocess.run(line, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(line)}\n{done.stdout}\n{done.stderr}"
    for name in re.findall(r"`(figures/[^`]*\.png)`", section):
        assert (place / name).read_bytes().startswith(b"\x89PNG"), name
        assert (place / name).with_suffix(".pdf").read_bytes().startswith(b"%PDF"), name
    return section


def test_covariance(place: Path, server: ServerProcess, sample_path: Path) -> None:
    section = follow("Figures 10 to 13", place, server, sample_path)
    assert section.count(".png`") == 5

    def ratio(model: str, pair: str, groups: int) -> float:
        scores = json.loads((place / f"figures/{model}/scores.json").read_text())
        found: float = scores[pair][str(groups)]["ratio"]
        return found

    for pair, groups in (("conv1c-conv2a", 16), ("conv2c-conv3a", 8)):
        assert ratio("nin-root-16", pair, groups) > 1.5
        assert 0.8 < ratio("nin-orig", pair, groups) < 1.2


def test_table_8(place: Path, server: ServerProcess, sample_path: Path) -> None:
    section = follow("Table 8", place, server, sample_path)
    table = json.loads((place / "table8.json").read_text())
    rows = {row["name"]: row for row in table}
    for model in ("nin-orig", "nin-root-16"):
        assert f"{rows[model]['paper']['accuracy']:.4f}" in section


def test_filters_and_layers(place: Path, server: ServerProcess, sample_path: Path) -> None:
    section = follow("Figures 14 and 15", place, server, sample_path)
    assert (place / "figures/filters-conv1a.png").exists()
    profile = (place / "figures/profile.json").read_text()
    numbers = re.findall(r"\d{1,3}(?:,\d{3})+", section)
    assert len(numbers) == 8
    for number in numbers:
        assert number.replace(",", "") in profile, number


def test_table_of_resnet50(place: Path, server: ServerProcess, sample_path: Path) -> None:
    follow("ResNet-50's table", place, server, sample_path)
