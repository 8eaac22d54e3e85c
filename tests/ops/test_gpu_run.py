"""scripts/gpu-run with a stand-in for Python: what it asks for, and what becomes of failures."""

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STAND_IN = """#!/bin/sh
echo "$@" >> {calls}
case "$*" in
    "-m pytest"*) exit {tests} ;;
    *benchmarks.training*) exit {speed} ;;
    *train_teacher*)
        for last; do [ "$before" = --out ] && echo teacher > "$last"; before=$last; done
        exit {teacher} ;;
    *benchmarks.recipes*)
        for last; do [ "$before" = --best ] && echo temperature=2.0 > "$last"; before=$last; done
        exit {recipes} ;;
    *"rootmodels.train "*) exit {train} ;;
    *benchmarks.gpu*) exit {measure} ;;
esac
"""
STAGES = ("tests", "speed", "teacher", "recipes", "train", "measure")


@dataclass(frozen=True)
class Ran:
    """Exit status, the lines of the summary, the commands that Python was asked for, and what came out."""

    status: int
    summary: list[str]
    calls: list[str]
    out: Path


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ran]:
    """Runs the script in a copy of the repository's folders that it needs, so that nothing is left behind."""
    root = tmp_path / "copy"
    (root / "rootmodels").mkdir(parents=True)
    shutil.copytree(ROOT / "scripts", root / "scripts")
    shutil.copytree(ROOT / "rootmodels" / "pretrained", root / "rootmodels" / "pretrained")

    def call(*stages: str, seconds: int = 540, **statuses: int) -> Ran:
        calls, out, program = tmp_path / "calls", tmp_path / "out", tmp_path / "python"
        calls.unlink(missing_ok=True)
        ends = dict.fromkeys(STAGES, 0) | statuses
        program.write_text(STAND_IN.format(calls=calls, **ends))
        program.chmod(0o755)
        settings = {"OUT": str(out), "DATA": "data", "PYTHON": str(program)}
        result = subprocess.run(
            [root / "scripts" / "gpu-run", *stages],
            env=os.environ | settings | {"TOTAL_S": str(seconds)},
            capture_output=True,
            text=True,
            check=False,
        )
        summary = (out / "summary.txt").read_text().splitlines()
        told = calls.read_text().splitlines() if calls.exists() else []
        return Ran(
            result.returncode, summary, [line for line in told if "-c " not in line[:3]], out
        )

    return call


def names(ran: Ran) -> list[str]:
    return [line.partition(":")[0] for line in ran.summary]


def test_it_tests_teaches_trains_and_measures(run: Callable[..., Ran]) -> None:
    ran = run()
    assert ran.status == 0
    assert names(ran) == ["smoke", "teacher", "training", "measure", "resnet50"]
    assert all("done in" in line for line in ran.summary)
    training = next(call for call in ran.calls if "rootmodels.train " in call)
    assert "nin-orig@0,1,2 nin-root-8@0,1,2" in training
    assert len(re.findall(r"nin-[\w-]+", training)) == 14
    assert "--recipe taught --teacher .train/teacher.safetensors" in training
    # What is left of nine minutes, less what is kept for measuring and what is around the steps.
    minutes = float(re.search(r"--fill-minutes (\S+)", training)[1])  # type: ignore[index]
    assert 3 < minutes < 4
    with tarfile.open(ran.out / "weights.tar") as archive:
        assert "rootmodels/pretrained/nin-orig.safetensors" in archive.getnames()
    assert (ran.out / "teacher.safetensors").read_text() == "teacher\n"


def test_the_best_recipe_is_trained_with(run: Callable[..., Ran]) -> None:
    ran = run("teacher", "recipes", "train")
    assert "temperature=2.0" in ran.calls[-1]


def test_a_step_that_fails_is_told_of_and_the_next_one_begins(run: Callable[..., Ran]) -> None:
    ran = run(tests=2, measure=1)
    assert ran.status == 1
    assert ran.summary[0] == "smoke: gpu tests: FAILED with status 2"
    assert names(ran)[:5] == ["smoke", "teacher", "training", "measure", "resnet50"]
    assert ran.summary[-1].endswith("scripts/gpu-run smoke measure resnet50")


def test_without_a_teacher_labels_are_learnt_from(run: Callable[..., Ran]) -> None:
    ran = run("train")
    assert "--recipe long" in ran.calls[-1]
    assert "--teacher" not in ran.calls[-1]


def test_a_compiler_that_fails_is_done_without(run: Callable[..., Ran]) -> None:
    ran = run("speed", "train", speed=1)
    assert "speed: training goes on without the compiler" in ran.summary
    assert "--no-compile" in ran.calls[-1]


def test_training_out_of_time_is_no_failure(run: Callable[..., Ran]) -> None:
    ran = run("train", train=3)
    assert ran.status == 0
    assert ran.summary[0].startswith("training: out of time")


def test_nothing_begins_when_the_time_is_over(run: Callable[..., Ran]) -> None:
    ran = run(seconds=0)
    assert ran.status == 1
    assert {line.partition(": ")[2] for line in ran.summary[:-1]} == {
        "not begun, no time left",
        "gpu tests: not begun, no time left",
    }
    assert ran.calls == []


def test_a_stage_that_is_none_is_refused(tmp_path: Path) -> None:
    command = [ROOT / "scripts" / "gpu-run", "smoke", "trane"]
    environment = os.environ | {"OUT": str(tmp_path / "out"), "DATA": "data"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("trane: no such stage; expected smoke, speed, teacher")


@pytest.mark.parametrize("missing", ["OUT", "DATA"])
def test_what_it_needs_is_said(tmp_path: Path, missing: str) -> None:
    settings = {"OUT": str(tmp_path / "out"), "DATA": "data", "PATH": os.environ["PATH"]}
    del settings[missing]
    result = subprocess.run(
        [ROOT / "scripts" / "gpu-run"], env=settings, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert f"{missing}: a folder" in result.stderr
