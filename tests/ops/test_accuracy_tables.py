"""The tables of accuracies are those of the shipped weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rootmodels.weights_info import read_info, weights_path

ROOT = Path(__file__).parents[2]
SERVED = ROOT / "docs" / "figures" / "served-accuracy.json"


def test_the_tables_in_readme_and_docs_are_current() -> None:
    command = [sys.executable, "scripts/accuracy_tables.py", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_tables_of_what_a_gpu_gave_are_current() -> None:
    command = [sys.executable, "-m", "scripts.gpu_tables", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_was_served_are_the_shipped_weights() -> None:
    rows = json.loads(SERVED.read_text())["rows"]
    assert rows
    for row in rows:
        info = read_info(weights_path(row["model"]))
        assert row["images"] == info.test_images
        assert row["fp32"] == pytest.approx(info.accuracy, abs=0.0005), row
