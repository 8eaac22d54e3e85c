"""scripts/gpu-run with a stand-in for Python: what it asks for, and what becomes of failures."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STAND_IN = """#!/bin/sh
echo "$@" >> {calls}
case "$*" in
    *pytest*) exit {pytest} ;;
    *--short-of-paper*) exit {train} ;;
esac
"""


def run(tmp_path: Path, minutes: str = "9", **statuses: int) -> tuple[int, list[str], list[str]]:
    """Exit status, the lines of the summary, and the commands that Python was asked for."""
    calls, out = tmp_path / "calls", tmp_path / "out"
    program = tmp_path / "python"
    program.write_text(STAND_IN.format(calls=calls, **{"pytest": 0, "train": 0} | statuses))
    program.chmod(0o755)
    settings = {"OUT": str(out), "DATA": "data", "PYTHON": str(program), "MINUTES": minutes}
    result = subprocess.run(
        [ROOT / "scripts" / "gpu-run"],
        env=os.environ | settings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    summary = (out / "summary.txt").read_text().splitlines()
    return result.returncode, summary, calls.read_text().splitlines() if calls.exists() else []


def test_it_tests_trains_and_measures(tmp_path: Path) -> None:
    status, summary, calls = run(tmp_path)
    assert status == 0
    assert [line.partition(":")[0] for line in summary] == [
        "gpu tests",
        "training",
        "more seeds",
        "engines",
        "served accuracy",
    ]
    assert all("done in" in line for line in summary)
    assert calls[0] == "-m pytest --gpu -q tests/gpu"
    assert calls[1].startswith("-m rootmodels.train --data data --device cuda --recipe long")
    with tarfile.open(tmp_path / "out" / "weights.tar") as archive:
        assert "rootmodels/pretrained/nin-orig.safetensors" in archive.getnames()


def test_a_step_that_fails_is_told_of_and_the_next_one_begins(tmp_path: Path) -> None:
    status, summary, calls = run(tmp_path, pytest=2)
    assert status == 1
    assert summary[0] == "gpu tests: FAILED with status 2"
    assert len(calls) == 5


def test_training_out_of_time_is_no_failure(tmp_path: Path) -> None:
    status, summary, _ = run(tmp_path, train=3)
    assert status == 0
    assert summary[1].startswith("training: out of time")


def test_nothing_begins_when_the_time_is_over(tmp_path: Path) -> None:
    status, summary, calls = run(tmp_path, minutes="0")
    assert status == 1
    assert {line.partition(": ")[2] for line in summary} == {"not begun, no time left"}
    assert calls == []


@pytest.mark.parametrize("missing", ["OUT", "DATA"])
def test_what_it_needs_is_said(tmp_path: Path, missing: str) -> None:
    settings = {"OUT": str(tmp_path / "out"), "DATA": "data", "PATH": os.environ["PATH"]}
    del settings[missing]
    result = subprocess.run(
        [ROOT / "scripts" / "gpu-run"], env=settings, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert f"{missing}: a folder" in result.stderr
