"""`rootserve choose` against a real server: of two variants, the one that holds more is told."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.support.server_process import running_server

SERVED = "nin-orig,nin-root-16"
PAGE = Path(__file__).parents[2] / "docs" / "choose.md"


def test_a_choice_on_a_real_server(tmp_path: Path, sample_path: Path) -> None:
    file, page = tmp_path / "choice.json", tmp_path / "choice.html"
    # The fake engine computes at once, and says class 9 of every image.
    with running_server("--models", SERVED, "--engine", "fake", "--device", "cpu") as server:
        result = subprocess.run(
            [
                sys.executable, "-m", "rootserve.client", "choose", "--slo-p99-ms", "1000",
                "--minutes", "0.5", "--rate", "1", "--data", sample_path, "--json", file,
                "--html", page, "--server", server.address,
            ],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        models = subprocess.run(
            [sys.executable, "-m", "rootserve.client", "models", "--json", "--server", server.address],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(file.read_text())
    assert document["schema"] == "rootserve.choice/1"
    variants = {each["name"]: each for each in document["variants"]}
    assert sorted(variants) == SERVED.split(",")
    limits = {each["name"]: each["batch_rows"] for each in json.loads(models.stdout)}
    for name, variant in variants.items():
        assert variant["callers_requests_per_s"] > 0
        assert variant["compute_ms"] > 0
        assert variant["steps"], variant
        assert variant["engine"] == "fake"
        assert variant["batch_rows"] == limits[name] > 0
        assert (variant["accuracy"], variant["accuracy_images"]) == (0.1, 1000)
    assert limits["nin-root-2"] is None  # not served
    assert "holds 1 requests/s with p99 within 1000 ms" in " ".join(result.stdout.split())
    assert "<svg" in page.read_text()


def test_the_run_that_the_docs_show(tmp_path: Path) -> None:
    """From nothing to a decision: its commands as they stand, with an engine that computes at once."""
    section = PAGE.read_text().partition("## From nothing to a decision")[2].partition("\n## ")[0]
    commands, output = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    serve, choose = (shlex.split(line.partition(" #")[0]) for line in commands.splitlines())
    assert (serve[0], choose[0]) == ("rootserve-server", "rootserve")
    with running_server(*serve[1:], "--engine", "fake", "--device", "cpu") as server:
        result = subprocess.run(
            [
                sys.executable, "-m", "rootserve.client", "--server", server.address, *choose[1:],
                "--minutes", "1.5",
            ],
            capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    # But for the figures it prints what is shown: the same variants in the same form.
    shown, printed = output.splitlines(), result.stdout.splitlines()
    assert [line.split() for line in printed[:2]] == [line.split() for line in shown[:2]]
    names = [sorted(line.split()[0] for line in lines[2:7]) for lines in (shown, printed)]
    assert names[0] == names[1]
    assert "is the most accurate that holds 150 requests/s" in " ".join(output.split())
    assert "is the most accurate that holds 150 requests/s" in " ".join(result.stdout.split())
    assert (tmp_path / "choice.html").exists()
