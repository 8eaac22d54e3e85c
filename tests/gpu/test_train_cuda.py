"""Training on a CUDA device: the compiled and captured step is the step of the CPU."""

from pathlib import Path

import pytest
import torch

from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.train import train
from rootmodels.train_job import Options, OutOfTimeError
from rootmodels.train_run import Recipe, Run, accuracy
from rootmodels.weights_info import read_info, weights_path

# What the compiler warns of differs from version to version, and is not about this code.
pytestmark = pytest.mark.filterwarnings("default")

CUDA = torch.device("cuda")
NAME = "nin-root-16"
RECIPE = Recipe(epochs=4, batch_size=64, small_share=0.5)


@pytest.fixture(scope="module")
def data(sample_path: Path) -> LabelledImages:
    return read_cifar10(sample_path, "test")


def test_a_capture_leaves_the_state_as_it_was(data: LabelledImages) -> None:
    run = Run(NAME, RECIPE, 0, data, CUDA)
    before = {key: value.clone() for key, value in run.state().items()}
    run._capture(24)
    for key, value in run.state().items():
        assert torch.equal(value, before[key]), key


def test_captured_steps_are_those_of_the_cpu(data: LabelledImages) -> None:
    """Small and large crops; bf16 and another order of additions leave the losses close."""
    captured, plain, cpu = (
        Run(NAME, RECIPE, 0, data, device, compiled=compiled)
        for device, compiled in ((CUDA, True), (CUDA, False), (torch.device("cpu"), False))
    )
    for step in (*range(3), 2 * captured.steps_per_epoch):
        losses = []
        for run in (captured, plain, cpu):
            run.step = step
            run.sums.zero_()
            run.train_step()
            losses.append(float(run.sums[0] / run.sums[2]))
        assert losses[0] == pytest.approx(losses[2], rel=0.05)
        assert losses[1] == pytest.approx(losses[2], rel=0.05)


def test_a_replayed_step_changes_the_weights_and_learns(data: LabelledImages) -> None:
    few = LabelledImages(data.images[:64], data.labels[:64])
    recipe = Recipe(epochs=24, batch_size=64, padding=0, label_smoothing=0.0, small_share=0.0)
    run = Run(NAME, recipe, 0, few, CUDA)
    for _ in range(run.steps):
        run.train_step()
    assert accuracy(run.model, few, CUDA) > 0.6


def test_a_run_that_is_stopped_goes_on(tmp_path: Path, data: LabelledImages) -> None:
    options = Options(tmp_path / "work", tmp_path / "out", CUDA, stop_at=0.0)
    with pytest.raises(OutOfTimeError):
        train([NAME], RECIPE, [0], (data, data), options)
    options = Options(tmp_path / "work", tmp_path / "out", CUDA)
    train([NAME], RECIPE, [0], (data, data), options)
    info = read_info(weights_path(NAME, tmp_path / "out"))
    assert info.hardware == torch.cuda.get_device_name(CUDA)
    assert info.accuracy > 0.1
