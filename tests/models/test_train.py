import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.data_error import DataError
from rootmodels.train import Options, Recipe, Run, accuracy, augment, main, one_cycle, train
from rootmodels.weights import load_weights

RECIPE = Recipe(epochs=2, batch_size=16)


@given(steps=st.integers(2, 500), warmup=st.floats(0.05, 0.9))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(steps: int, warmup: float) -> None:
    recipe = replace(RECIPE, warmup=warmup)
    rates = [one_cycle(step, steps, recipe) for step in range(steps)]
    assert min(rates) > 0
    assert max(rates) <= recipe.peak_lr * (1 + 1e-9)
    top = math.ceil(warmup * steps)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] <= recipe.peak_lr / (steps - warmup * steps) + 1e-12


def test_crops_are_windows_of_the_padded_image_and_half_are_mirrored() -> None:
    images = torch.arange(1, 1 + 3 * 8 * 8, dtype=torch.uint8).view(1, 3, 8, 8).repeat(300, 1, 1, 1)
    out = augment(images, 2, torch.Generator().manual_seed(0))
    assert out.shape == images.shape
    padded = torch.empty(3, 12, 12, dtype=torch.uint8)
    padded[:] = torch.tensor([125, 123, 114], dtype=torch.uint8).view(3, 1, 1)
    padded[:, 2:10, 2:10] = images[0]
    windows = {}
    for top in range(5):
        for left in range(5):
            window = padded[:, top : top + 8, left : left + 8]
            windows[window.numpy().tobytes()] = False
            windows[window.flip(2).numpy().tobytes()] = True
    mirrored = [windows[image.numpy().tobytes()] for image in out]
    assert 0.4 < np.mean(mirrored) < 0.6


def test_the_same_seed_draws_the_same_crops() -> None:
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    first, again, other = (
        augment(images, 4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.fixture(scope="module")
def tiny(request: pytest.FixtureRequest) -> LabelledImages:
    data = read_cifar10(request.getfixturevalue("sample_path"), "test")
    return LabelledImages(data.images[:64], data.labels[:64])


def test_training_learns_a_small_set_by_heart(tiny: LabelledImages) -> None:
    recipe = Recipe(epochs=12, batch_size=32, crop_padding=0, label_smoothing=0.0)
    run = Run("nin-root-16", recipe, 0, tiny, torch.device("cpu"))
    losses = [run.train_step()[0] for _ in range(run.steps)]
    assert np.mean(losses[-4:]) < 0.5 * losses[0]
    assert accuracy(run.model, tiny, torch.device("cpu")) > 0.6


def test_a_run_that_is_killed_ends_with_the_weights_of_one_that_is_not(
    tmp_path: Path, tiny: LabelledImages
) -> None:
    """A real process and SIGKILL, in the first half of a run of eight steps."""
    data = tmp_path / "data"
    data.mkdir()
    sample = pq.read_table(Path(__file__).parents[2] / "examples" / "cifar10-sample.parquet")
    pq.write_table(sample.slice(0, 512), data / "train-0.parquet")
    pq.write_table(sample.slice(512, 32), data / "test-0.parquet")

    def command(name: str) -> list[str]:
        folders = ["--work", str(tmp_path / name), "--out", str(tmp_path / f"{name}-out")]
        arguments = ["nin-root-16", "--data", str(data), "--epochs", "2", *folders]
        return [sys.executable, "-m", "rootmodels.train", *arguments, "--threads", "1"]

    whole = subprocess.run(command("whole"), check=True, capture_output=True, text=True)
    assert "accuracy" in whole.stdout

    process = subprocess.Popen(
        [*command("killed"), "--checkpoint-every", "1"], stdout=subprocess.DEVNULL
    )
    wait_for_step(tmp_path / "killed", 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = subprocess.run(
        [*command("killed"), "--checkpoint-every", "1"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "going on from step" in resumed.stdout
    a = load_file(tmp_path / "whole-out" / "nin-root-16.safetensors")
    b = load_file(tmp_path / "killed-out" / "nin-root-16.safetensors")
    assert all(torch.equal(a[key], b[key]) for key in a)


def wait_for_step(work: Path, step: int) -> None:
    for _ in range(600):
        for checkpoint in work.glob("*.pt"):
            if torch.load(checkpoint, weights_only=True)["step"] >= step:
                return
        time.sleep(0.1)
    raise AssertionError(f"no checkpoint of step {step} in {work}")


def test_the_file_says_what_was_measured(tmp_path: Path, tiny: LabelledImages) -> None:
    options = Options(tmp_path / "work", tmp_path / "out", torch.device("cpu"))
    info = train("nin-root-16", RECIPE, 3, tiny, tiny, options)
    model, read = load_weights(tmp_path / "out" / "nin-root-16.safetensors")
    assert read == info
    assert (info.variant, info.epochs, info.seed, info.test_images) == ("nin-root-16", 2, 3, 64)
    assert info.data_sha256 == tiny.sha256()
    assert accuracy(model.fold(), tiny, torch.device("cpu")) == info.accuracy
    (log,) = (tmp_path / "work").glob("*.jsonl")
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nin-root-3", "--data", "x"], "no variant is called 'nin-root-3'"),
        (["nin-orig", "--data", "nowhere"], "no CIFAR-10 at nowhere"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_set_smaller_than_a_batch_is_refused(tiny: LabelledImages) -> None:
    with pytest.raises(DataError, match="has 64 images, expected at least one batch, 128"):
        Run("nin-root-16", Recipe(), 0, tiny, torch.device("cpu"))


def test_zero_epochs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nin-orig", "--data", "x", "--epochs", "0"])
    assert "--epochs is 0, expected at least 1" in capsys.readouterr().err
