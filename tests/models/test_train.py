import io
import json
import math
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from rootmodels import train_job
from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.families.nin import NIN
from rootmodels.network import Network
from rootmodels.train import main, short_of_paper, train, training_progress
from rootmodels.train_batches import Batches, crop, cut_out, pad
from rootmodels.train_fleet import Computing, Fleet, variants_fleet
from rootmodels.train_job import Options, OutOfTimeError, Training
from rootmodels.train_networks import Trainee, find_jobs
from rootmodels.train_recipe import Recipe, one_cycle, with_numbers
from rootmodels.train_run import accuracy
from rootmodels.variants import VARIANTS
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import WeightsInfo, read_info, weights_path
from rootserve.pictures import DataError

RECIPE = Recipe(epochs=2, batch_size=16)
CPU = Computing(torch.device("cpu"))
NAME = "nin-root-16"
TRAINEE = Trainee(VARIANTS[NAME])


def batches(recipe: Recipe, seed: int, data: LabelledImages) -> Batches:
    return Batches(data, recipe, seed, CPU.device, colour=NIN.mean, image_size=32)


def alone(recipe: Recipe, data: LabelledImages) -> Fleet:
    return variants_fleet([TRAINEE.variant], recipe, 0, data, CPU)


@given(steps=st.integers(2, 500), warmup=st.floats(0.05, 0.9))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(steps: int, warmup: float) -> None:
    rates = [one_cycle(step, steps, warmup) for step in range(steps)]
    assert min(rates) > 0
    assert max(rates) <= 1 + 1e-9
    top = math.ceil(warmup * steps)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] <= 1 / (steps - warmup * steps) + 1e-12


def test_a_crop_is_the_window_at_its_corner() -> None:
    images = torch.arange(2 * 5 * 5 * 3, dtype=torch.uint8).view(2, 5, 5, 3)
    rows, corners = torch.tensor([1, 0, 1]), torch.tensor([[0, 1, 2], [2, 1, 0]])
    out = crop(images, rows, corners, torch.tensor([False, True, False]), 3)
    assert out.shape == (3, 3, 3, 3)
    assert out.is_contiguous(memory_format=torch.channels_last)
    planes = images.permute(0, 3, 1, 2)
    assert torch.equal(out[0], planes[1, :, 0:3, 2:5])
    assert torch.equal(out[1], planes[0, :, 1:4, 1:4].flip(2))
    assert torch.equal(out[2], planes[1, :, 2:5, 0:3])


def test_padding_has_the_colour_that_the_network_takes_for_zero() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    padded = pad(images, 2, torch.tensor([125, 123, 114], dtype=torch.uint8))
    assert padded.shape == (2, 8, 8, 3)
    assert torch.equal(padded[:, 2:6, 2:6].permute(0, 3, 1, 2), images)
    assert padded[1, 0, 7].tolist() == padded[0, 6, 3].tolist() == [125, 123, 114]


def test_a_hole_is_a_square_around_its_centre_and_may_reach_over_the_border() -> None:
    images = torch.full((2, 3, 8, 8), 9, dtype=torch.uint8)
    colour = torch.tensor([1, 2, 3], dtype=torch.uint8)
    out = cut_out(images, torch.tensor([[4, 0], [5, 7]]), 4, colour)
    changed = (out != images).all(1)
    expected = torch.zeros(2, 8, 8, dtype=torch.bool)
    expected[0, 2:6, 3:7] = True
    expected[1, 0:2, 5:8] = True
    assert torch.equal(changed, expected)
    assert out[0, :, 3, 4].tolist() == [1, 2, 3]


def test_an_epoch_sees_each_image_once_and_mirrored_every_other_time(tiny: LabelledImages) -> None:
    drawing = batches(RECIPE, 0, tiny)
    turned = []
    for epoch in range(3):
        plan = drawing._draw(epoch)
        assert sorted(plan.rows.tolist()) == list(range(64))
        turned.append(plan.mirrored[plan.rows.argsort()])
    assert torch.equal(turned[0], ~turned[1])
    assert torch.equal(turned[0], turned[2])
    assert 16 < turned[0].sum() < 48


def test_crops_are_small_within_the_image_and_then_large_over_its_border(
    tiny: LabelledImages,
) -> None:
    recipe = replace(RECIPE, small_share=0.7, small_size=24, padding=2)
    sizes = [recipe.crop(step, 10) for step in range(10)]
    assert sizes == [(24, 0)] * 7 + [(32, 2)] * 3
    drawing = batches(recipe, 0, tiny)
    places = torch.rand(2, 5000, generator=torch.Generator().manual_seed(0))
    places[:, 0], places[:, 1] = 0.0, 1 - 2**-24
    # Edges in the images that are padded by 2: the image is at 2..34.
    assert set(drawing._corners_of(places, 24, 0).flatten().tolist()) == set(range(2, 11))
    assert set(drawing._corners_of(places, 32, 2).flatten().tolist()) == set(range(5))


def test_what_is_drawn_follows_from_seed_and_epoch(tiny: LabelledImages) -> None:
    def rows(seed: int, epoch: int) -> list[int]:
        drawn: list[int] = batches(RECIPE, seed, tiny)._draw(epoch).rows.tolist()
        return drawn

    assert rows(1, 3) == rows(1, 3)
    assert rows(1, 3) != rows(1, 4)
    assert rows(1, 3) != rows(2, 3)


def test_a_mixed_batch_holds_two_images_and_their_labels(tiny: LabelledImages) -> None:
    plain, mixed = (batches(replace(RECIPE, mixup=m), 0, tiny) for m in (0.0, 0.5))
    shares = []
    for step in range(4):
        size = plain.choose(step, 8)
        mixed.choose(step, 8)
        images, batch = plain.take(size).images.float(), mixed.take(size)
        assert batch.share is not None
        assert batch.others is not None
        share = float(batch.share)
        shares.append(share)
        expected = (1 - share) * images + share * images.roll(1, 0)
        torch.testing.assert_close(batch.images, expected)
        assert torch.equal(batch.others, batch.labels.roll(1))
    assert len(set(shares)) == 4
    assert min(shares) >= 0
    assert max(shares) <= 0.5


@pytest.fixture(scope="module")
def tiny(request: pytest.FixtureRequest) -> LabelledImages:
    data = read_cifar10(request.getfixturevalue("sample_path"), "test")
    return LabelledImages(data.images[:64], data.labels[:64])


def test_training_learns_a_small_set_by_heart(tiny: LabelledImages) -> None:
    recipe = Recipe(epochs=12, batch_size=32, padding=0, label_smoothing=0.0)
    fleet = alone(recipe, tiny)
    (run,) = fleet.runs
    losses = []
    for _ in range(fleet.steps):
        fleet.train_step()
        losses.append(float(run.sums[0] / run.sums[2]))
        run.sums.zero_()
    assert sum(losses[-4:]) / 4 < 0.5 * losses[0]
    assert accuracy(run.model, tiny, torch.device("cpu")) > 0.6


class Operations(TorchDispatchMode):
    """Notes the name of every operation that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("size", "dense"), [(24, False), (32, True)])
def test_a_step_never_waits_for_the_device(tiny: LabelledImages, size: int, dense: bool) -> None:
    """Reading a value back, or a shape that depends on one, cannot be captured in a CUDA graph."""
    recipe = replace(RECIPE, cutout=8, mixup=0.5, averaging=0.1, teacher_share=0.5)
    computing = replace(CPU, dense=dense)
    teacher = Network(VARIANTS[NAME]).eval()
    fleet = variants_fleet([TRAINEE.variant], recipe, 0, tiny, computing, teacher=teacher)
    with Operations() as seen:
        fleet._compute(size)
    assert {"convolution_backward", "bmm", "lerp_"} < seen.names
    waiting = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique"}
    assert not waiting & seen.names


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
        arguments = ["nin-root-16", "--data", str(data), "--epochs", "4", *folders]
        return [sys.executable, "-m", "rootmodels.train", *arguments, "--threads", "1"]

    whole = subprocess.run(command("whole"), check=True, capture_output=True, text=True)
    assert "accuracy" in whole.stdout

    process = subprocess.Popen(
        [*command("killed"), "--checkpoint-s", "0"], stdout=subprocess.DEVNULL
    )
    wait_for_step(tmp_path / "killed", 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = subprocess.run(
        [*command("killed"), "--checkpoint-s", "0"],
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
    options = Options(tmp_path / "work", tmp_path / "out", CPU)
    train({TRAINEE: (3, 4)}, RECIPE, (tiny, tiny), options)
    model, info = load_weights(tmp_path / "out" / "nin-root-16.safetensors")
    assert (info.variant, info.epochs, info.seed, info.test_images) == ("nin-root-16", 2, 3, 64)
    assert info.data_sha256 == tiny.sha256()
    assert info.hardware
    assert info.seconds > 0
    assert accuracy(model.fold(), tiny, torch.device("cpu")) == info.accuracy
    assert info.seed_accuracies.keys() == {"3", "4"}
    assert info.seed_accuracies["3"] == info.accuracy
    for log in (tmp_path / "work").glob("*.jsonl"):
        assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2]


def test_training_goes_on_from_weights(tmp_path: Path, tiny: LabelledImages) -> None:
    options = Options(tmp_path / "work", tmp_path / "first", CPU)
    train({TRAINEE: (0,)}, RECIPE, (tiny, tiny), options)
    path = weights_path("nin-root-16", tmp_path / "first")
    first, info = load_weights(path)
    more = replace(options, out=tmp_path / "second")
    trained = replace(TRAINEE, start=path)
    begun = Training([trained], RECIPE, 1, tiny, more).fleet.runs[0].model.state_dict()
    assert all(torch.equal(value, begun[key]) for key, value in first.state_dict().items())
    train({trained: (1,)}, RECIPE, (tiny, tiny), more)
    second = read_info(weights_path("nin-root-16", tmp_path / "second"))
    assert (second.epochs, second.seed) == (4, 1)
    assert second.continued_from == {
        "variant": "nin-root-16",
        "epochs": 2,
        "seed": 0,
        "accuracy": info.accuracy,
        "recipe": info.recipe,
    }


def test_a_run_out_of_time_stops_with_a_checkpoint_and_goes_on(
    tmp_path: Path, tiny: LabelledImages
) -> None:
    options = Options(tmp_path / "work", tmp_path / "out", CPU)
    with pytest.raises(OutOfTimeError, match=r"^step 1 of \d+$"):
        train({TRAINEE: (0,)}, RECIPE, (tiny, tiny), replace(options, stop_at=0.0))
    assert Training([TRAINEE], RECIPE, 0, tiny, options).fleet.step == 1
    assert not (tmp_path / "out").exists()
    train({TRAINEE: (0,)}, RECIPE, (tiny, tiny), options)
    assert weights_path("nin-root-16", tmp_path / "out").exists()


def test_an_epoch_that_takes_long_says_where_it_is(
    tmp_path: Path, tiny: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_job, "EVERY_S", 0.0)
    training = Training([TRAINEE], RECIPE, 0, tiny, Options(tmp_path, tmp_path, CPU))
    screen = Console(file=io.StringIO(), force_terminal=False)
    with training_progress(screen) as progress:
        tasks = {TRAINEE.name: progress.add_task("", status="", total=training.fleet.steps)}
        training.to_the_end(progress, tasks)
    assert isinstance(screen.file, io.StringIO)
    steps = training.fleet.steps
    assert training.fleet.steps_per_epoch > 1
    for step in range(1, steps + 1):
        assert f"{TRAINEE.name}: step {step} of {steps}" in screen.file.getvalue()


def test_epochs_after_the_last_checkpoint_are_logged_once(
    tmp_path: Path, tiny: LabelledImages
) -> None:
    options = Options(tmp_path / "work", tmp_path / "out", CPU)
    training = Training([TRAINEE], RECIPE, 0, tiny, options)
    training.fleet.step = 3
    training.save()
    training.log.write_text('{"step": 2}\n{"step": 4}\n')  # killed between log and checkpoint
    Training([TRAINEE], RECIPE, 0, tiny, options)
    assert training.log.read_text() == '{"step": 2}\n'


def test_variants_short_of_the_paper_come_worst_first(tmp_path: Path) -> None:
    for name, reached in (("nin-orig", 0.93), ("nin-root-32", 0.5), ("nin-root-2", 0.91)):
        model = Network(VARIANTS[name])
        info = WeightsInfo(name, reached, 10_000, 1, 0, "", {})
        save_weights(weights_path(name, tmp_path), model, info)
    names = short_of_paper(tmp_path)
    assert len(names) == 12
    assert names[-1] == "nin-root-2"
    assert {"nin-orig", "nin-root-32"}.isdisjoint(names)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nin-root-3", "--data", "x"], "no variant is called 'nin-root-3'"),
        (["nin-orig", "--data", "nowhere"], "nowhere: no such file or folder"),
        (
            ["nin-orig", "--data", "x", "--init", "tests", "--out", "tests/../tests"],
            "nin-orig would start from tests/nin-orig.safetensors and overwrite it; expected another "
            "folder for --out",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_set_smaller_than_a_batch_is_refused(tiny: LabelledImages) -> None:
    with pytest.raises(DataError, match="has 64 images, expected at least one batch, 256"):
        alone(Recipe(), tiny)


def test_zero_epochs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nin-orig", "--data", "x", "--epochs", "0"])
    assert "--epochs is 0, expected at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("variants", [[], ["nin-orig", "--short-of-paper"]])
def test_what_to_train_must_be_said_in_one_way(
    variants: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*variants, "--data", "x"])
    assert "expected networks or --short-of-paper" in capsys.readouterr().err


def test_settings_change_the_numbers_of_a_recipe() -> None:
    changed = with_numbers(Recipe(), ["batch_size=64", "mixup=0.25"])
    assert changed == replace(Recipe(), batch_size=64, mixup=0.25)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("speed=3", "'speed=3' is no setting; expected NAME=VALUE of epochs, batch_size"),
        ("epochs", "'epochs' is no setting"),
        ("epochs=1.5", "epochs is '1.5', expected int"),
    ],
)
def test_settings_that_are_none_are_refused(setting: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        with_numbers(Recipe(), [setting])


def test_a_variant_may_have_seeds_of_its_own() -> None:
    found = find_jobs(["nin-orig@0,2", NAME], [5])
    assert found == {Trainee(VARIANTS["nin-orig"]): (0, 2), TRAINEE: (5,)}
    with pytest.raises(ValueError, match="expected seeds as in nin-orig@0,1,2"):
        find_jobs(["nin-orig@x"], [0])
    with pytest.raises(ValueError, match="nin-orig comes twice"):
        find_jobs(["nin-orig@0", "nin-orig@1"], [0])


def test_a_recipe_with_a_teacher_asks_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([NAME, "--data", "x", "--set", "teacher_share=0.5"])
    assert "teacher_share is 0.5, expected --teacher FILE" in capsys.readouterr().err


def test_a_teacher_is_not_brought_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([NAME, "--data", "x", "--teacher", "teacher.safetensors"])
    told = capsys.readouterr().err
    assert "--teacher came, expected --recipe taught, or --set teacher_share=SHARE" in told
