"""Training of a residual network, on pictures and on scaled CIFAR-10."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rootmodels import image_folder, verify
from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.cifar10_facts import CLASSES as CIFAR10_CLASSES
from rootmodels.network import Network
from rootmodels.train import main, train
from rootmodels.train_batches import Batch, scaled
from rootmodels.train_data import TrainingData, read_training_data
from rootmodels.train_fleet import Computing, variants_fleet
from rootmodels.train_init import start_from
from rootmodels.train_job import Options, OutOfTimeError, Training
from rootmodels.train_networks import Trainee
from rootmodels.train_recipe import Recipe
from rootmodels.train_run import accuracy
from rootmodels.variants import get_variant
from rootmodels.weights import load_weights
from rootmodels.weights_info import WeightsError, read_info, weights_path
from rootserve.server.engines.base import LoadSpec
from rootserve.server.engines.registry import get_loader

NAME = "resnet50-root-64"
TRAINEE = Trainee(get_variant(NAME))
RECIPE = Recipe(epochs=1, batch_size=8)
COLOURS = {"blue": (20, 30, 200), "green": (30, 180, 40), "red": (210, 20, 30)}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(-20, 20, (50, 40, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return root


@pytest.fixture(scope="module")
def data(pictures: Path) -> TrainingData:
    return read_training_data(pictures, 32)


def options(folder: Path, data: TrainingData) -> Options:
    return Options(
        folder / "work", folder / "out", Computing(CPU), image_size=32, classes=data.classes
    )


@pytest.fixture(scope="module")
def trained(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train({TRAINEE: (0,)}, RECIPE, (data.train, data.test), options(folder, data))
    return weights_path(NAME, folder / "out")


def test_pictures_become_squares_of_the_size_asked_for(data: TrainingData) -> None:
    assert data.classes == ("blue", "green", "red")
    assert data.train.images.shape == (18, 3, 32, 32)
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    for label, colour in enumerate(COLOURS.values()):
        mean = data.test.images[data.test.labels == label].mean(axis=(0, 2, 3))
        np.testing.assert_allclose(mean, colour, atol=8)


def test_weights_say_what_they_are_for_and_are_served(trained: Path, data: TrainingData) -> None:
    info = read_info(trained)
    assert (info.classes, info.image_size) == (("blue", "green", "red"), 32)
    assert (info.test_images, info.data_sha256) == (6, data.train.sha256())
    model, _ = load_weights(trained)
    module = model.fold()
    assert info.accuracy == accuracy(module, data.test, CPU)
    with torch.inference_mode():
        expected = module(torch.from_numpy(data.test.images)).numpy()
    assert expected.shape == (6, 3)
    for engine in ("torch", "openvino"):
        # As many threads as before: engines set them for the process, and sums depend on them.
        spec = LoadSpec(NAME, trained, "cpu", torch.get_num_threads())
        logits = get_loader(engine)(spec).run(data.test.images)
        # After two steps the normalisations know little, and logits are huge.
        np.testing.assert_allclose(logits, expected, rtol=1e-3)


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    trained: Path, data: TrainingData, tmp_path: Path
) -> None:
    both = (data.train, data.test)
    settings = options(tmp_path, data)
    with pytest.raises(OutOfTimeError):
        train({TRAINEE: (0,)}, RECIPE, both, replace(settings, stop_at=0.0))
    train({TRAINEE: (0,)}, RECIPE, both, settings)
    whole, stopped = (load_weights(p)[0] for p in (trained, weights_path(NAME, settings.out)))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, stopped.state_dict()[key]), key


@pytest.mark.parametrize("dense", [False, True])
def test_cifar10_is_scaled_to_what_the_network_sees(
    sample_path: Path, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = read_cifar10(sample_path, "test")
    few = LabelledImages(few.images[:4], few.labels[:4])
    recipe = Recipe(epochs=1, batch_size=4)
    fleet = variants_fleet(
        [TRAINEE.variant], recipe, 0, few, Computing(CPU, dense=dense), image_size=64, classes=10
    )
    (run,) = fleet.runs
    sizes: list[tuple[int, ...]] = []

    def noted(batch: Batch) -> Batch:
        sizes.append(tuple(batch.images.shape))
        return batch

    scaling = fleet.batches.take
    monkeypatch.setattr(fleet.batches, "take", lambda size: noted(scaling(size)))
    before = {key: value.clone() for key, value in run.model.named_parameters()}
    fleet.train_step()
    # A small crop, as the recipe begins with them, at the same scale.
    assert sizes == [(4, 3, 48, 48)]
    assert not [key for key, value in run.model.named_parameters() if value.equal(before[key])]


def test_scaling_keeps_what_is_even() -> None:
    even = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    assert torch.equal(scaled(even, 64), torch.full((1, 3, 64, 64), 77.0))


def test_a_network_of_other_classes_begins_with_its_own_last_layer(trained: Path) -> None:
    torch.manual_seed(0)
    model = Network(get_variant(NAME), 64, classes=10)
    own = model.get_parameter("fc.weight").clone()
    assert start_from(trained, model).variant == NAME
    source = load_weights(trained)[0]
    assert torch.equal(model.get_parameter("fc.weight"), own)
    assert torch.equal(model.get_parameter("conv1.weight"), source.get_parameter("conv1.weight"))
    with pytest.raises(WeightsError, match=f"holds weights of {NAME}, expected some of nin"):
        start_from(trained, Network(get_variant("nin-orig")))


def spoiled(pictures: Path, tmp_path: Path, name: str, content: bytes) -> Path:
    for split in ("train", "val"):
        for colour in ("blue", "green"):
            folder = tmp_path / split / colour
            folder.mkdir(parents=True)
            (folder / "0.jpg").write_bytes((pictures / split / colour / "0.jpg").read_bytes())
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("val/green/1.jpg", r"green/1\.jpg cannot be decoded"),
        ("val/mauve/1.jpg", "has the class 'mauve', which train has not"),
    ],
)
def test_a_folder_with_something_wrong_is_refused(
    pictures: Path, tmp_path: Path, name: str, words: str
) -> None:
    folder = spoiled(pictures, tmp_path, name, b"no picture")
    with pytest.raises(ValueError, match=words):
        read_training_data(folder, 32)


def test_more_pictures_than_memory_are_refused(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "_free_bytes", lambda: 30_000)
    with pytest.raises(ValueError, match=r"6 pictures of 32x32 take .* expected at most half"):
        read_training_data(pictures, 32)


def test_what_was_trained_on_pictures_is_verified_on_them(trained: Path, pictures: Path) -> None:
    folders = ("--data", str(pictures), "--weights", str(trained.parent))
    assert verify.main([NAME, *folders, "--device", "cpu"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((NAME, "--image-size", "8"), "--image-size is 8, expected 16 to 1024"),
        ((NAME, "nin-orig"), "networks of nin and resnet50 take images of different sizes"),
        ((NAME, "--image-size", "32"), "18 images, expected at least one batch, 256"),
    ],
)
def test_what_cannot_be_trained_is_told(
    pictures: Path, tmp_path: Path, arguments: tuple[str, ...], words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folders = ("--data", str(pictures), "--work", str(tmp_path / "w"), "--out", str(tmp_path / "o"))
    assert main([*arguments, *folders]) == 2
    assert words in capsys.readouterr().err


def test_classes_of_cifar10_are_told(sample_path: Path, tmp_path: Path) -> None:
    settings = Options(tmp_path / "work", tmp_path / "out", Computing(CPU), image_size=48)
    info = Training([TRAINEE], RECIPE, 0, read_cifar10(sample_path, "test"), settings).infos[NAME]
    assert (info.classes, info.image_size) == (CIFAR10_CLASSES, 48)
