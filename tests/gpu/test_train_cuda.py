"""Training on a CUDA device: the compiled and captured step is the step of the CPU."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.families.nin import NIN
from rootmodels.teacher import Teacher
from rootmodels.train import train
from rootmodels.train_fleet import Computing, variants_fleet
from rootmodels.train_job import Options, OutOfTimeError
from rootmodels.train_networks import Trainee
from rootmodels.train_recipe import Recipe
from rootmodels.train_run import accuracy
from rootmodels.variants import get_variant
from rootmodels.weights_info import read_info, weights_path

# What the compiler warns of differs from version to version, and is not about this code.
pytestmark = pytest.mark.filterwarnings("default")

CAPTURED = Computing(torch.device("cuda"), torch.bfloat16, dense=True, captured=True)
COMPILED = replace(CAPTURED, compiled=True)
PLAIN = Computing(torch.device("cuda"), torch.bfloat16)
CPU = Computing(torch.device("cpu"))
NAMES = ["nin-root-16", "nin-tree-4"]
CHOSEN = [get_variant(name) for name in NAMES]
RECIPE = Recipe(epochs=4, batch_size=64, small_share=0.5)


@pytest.fixture(scope="module")
def data(sample_path: Path) -> LabelledImages:
    return read_cifar10(sample_path, "test")


@pytest.mark.quick
def test_a_capture_leaves_the_state_as_it_was(data: LabelledImages) -> None:
    fleet = variants_fleet(CHOSEN, RECIPE, 0, data, CAPTURED)
    fleet.batches.choose(0, fleet.steps)
    before = [{key: value.clone() for key, value in state.items()} for state in fleet.state()]
    fleet._capture(24)
    for state, earlier in zip(fleet.state(), before, strict=True):
        for key, value in state.items():
            assert torch.equal(value, earlier[key]), key


@pytest.mark.parametrize(
    "computing", [COMPILED, CAPTURED, PLAIN], ids=["compiled", "captured", "plain"]
)
def test_steps_are_those_of_the_cpu(data: LabelledImages, computing: Computing) -> None:
    """Small and large crops, all that a recipe can ask for; bf16 leaves the losses close."""
    torch.manual_seed(0)
    teacher = Teacher().eval()
    recipe = replace(RECIPE, averaging=0.1, mixup=0.5, cutout=8, teacher_share=0.5)
    fleets = [
        variants_fleet(CHOSEN, recipe, 0, data, way, teacher=Teacher().eval().to(way.device))
        for way in (computing, CPU)
    ]
    for fleet in fleets:
        assert fleet.teacher is not None
        fleet.teacher.load_state_dict(teacher.state_dict())
    for step in (*range(3), 2 * fleets[0].steps_per_epoch):
        losses = []
        for fleet in fleets:
            fleet.step = step
            for run in fleet.runs:
                run.sums.zero_()
            fleet.train_step()
            losses.append([float(run.sums[0] / run.sums[2]) for run in fleet.runs])
        assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.quick
def test_every_variant_does_a_step(data: LabelledImages) -> None:
    fleet = variants_fleet(NIN.variants, RECIPE, 0, data, CAPTURED)
    before = [run.model.state_dict()["body.conv2a.conv.weight"].clone() for run in fleet.runs]
    fleet.train_step()
    for run, weight in zip(fleet.runs, before, strict=True):
        assert not torch.equal(run.model.state_dict()["body.conv2a.conv.weight"], weight)
        assert float(run.sums[2]) == 64
        assert torch.isfinite(run.sums).all()


@pytest.mark.quick
def test_a_replayed_step_changes_the_weights_and_learns(data: LabelledImages) -> None:
    few = LabelledImages(data.images[:64], data.labels[:64])
    recipe = Recipe(epochs=24, batch_size=64, padding=0, label_smoothing=0.0, small_share=0.0)
    fleet = variants_fleet(CHOSEN, recipe, 0, few, CAPTURED)
    for _ in range(fleet.steps):
        fleet.train_step()
    for run in fleet.runs:
        assert accuracy(run.model, few, CAPTURED.device) > 0.6


def test_a_run_that_is_stopped_goes_on(tmp_path: Path, data: LabelledImages) -> None:
    options = Options(tmp_path / "work", tmp_path / "out", CAPTURED, side_by_side=2)
    jobs = {Trainee(variant): (0,) for variant in CHOSEN}
    with pytest.raises(OutOfTimeError):
        train(jobs, RECIPE, (data, data), replace(options, stop_at=0.0))
    train(jobs, RECIPE, (data, data), options)
    for name in NAMES:
        info = read_info(weights_path(name, tmp_path / "out"))
        assert info.hardware == torch.cuda.get_device_name(CAPTURED.device)
        assert info.precision == "bf16"
        assert info.accuracy is not None
        assert info.accuracy > 0.1
