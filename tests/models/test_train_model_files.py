"""Model files in training: they begin with their own weights, and become model files again."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from rootmodels import verify
from rootmodels.calibration import read_calibration
from rootmodels.cifar10 import read_cifar10
from rootmodels.cifar10_facts import CLASSES
from rootmodels.layer import IMAGES, Layer
from rootmodels.model import Model
from rootmodels.model_file import open_weights, read_model, write_trained
from rootmodels.network import Network
from rootmodels.train import main, train
from rootmodels.train_fleet import Computing
from rootmodels.train_job import Options, OutOfTimeError, Training
from rootmodels.train_networks import find_jobs
from rootmodels.train_recipe import Recipe
from rootmodels.train_run import accuracy
from rootmodels.weights import load_weights
from rootmodels.weights_info import PRETRAINED_DIR, WeightsError, file_sha256, weights_path
from rootserve.server import calibrate
from rootserve.server.engines.base import LoadSpec
from rootserve.server.engines.registry import get_loader
from tests.support.model_files import conv, model_of, simple_layers, write_small

NAME = "my-net"
CPU = torch.device("cpu")
NUMBERS = ("--set", "batch_size=16", "vector_lr=0.01", "--precision", "fp32", "--device", "cpu")
GRAPH = "graph.features-conv1"


def layers(groups: int = 1) -> tuple[Layer, ...]:
    """Two convolutions with normalisations, the second one in groups, and one without in between."""
    norm = {"bias": False, "norm": f"{GRAPH}-norm", "path": GRAPH, "activation": "relu"}
    return (
        conv("features.conv1", IMAGES, 3, 16, 32, 3, **norm),
        Layer("pool", "max_pool", 2, 16, 16, 16, ("features.conv1",), stride=2),
        conv("bare", "pool", 16, 16, 16, 3, activation="silu", path="graph.bare"),
        conv("conv2", "bare", 16, 16, 16, 3, groups=groups,
             **norm | {"path": "graph.conv2", "norm": "graph.conv2-norm"}),
        Layer("mean", "global_avg_pool", 16, 16, 16, 1, ("conv2",)),
        Layer("linear", "linear", 1, 16, 10, 1, ("mean",), bias=True, path="graph.linear"),
    )  # fmt: skip


def model(name: str = NAME, groups: int = 1, **more: object) -> Model:
    fields = {"classes": CLASSES, "accuracy": None, "test_images": 0, "tested_on": ""} | more
    return model_of(name, layers(groups), family=NAME, **fields)


def write(folder: Path, described: Model, seed: int = 0) -> Path:
    """In its training form, with random weights."""
    torch.manual_seed(seed)
    state = Network(described.variant).state_dict()
    path = weights_path(described.name, folder)
    write_trained(path, described, {key: value.numpy() for key, value in state.items()})
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, sample_path: Path) -> Path:
    """48 images, training and test set in one."""
    path = tmp_path_factory.mktemp("data") / "tiny.parquet"
    pq.write_table(pq.read_table(sample_path).slice(0, 48), path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three colours, not square."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name, colour in {
            "blue": (20, 30, 200),
            "green": (30, 180, 40),
            "red": (210, 20, 30),
        }.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(-20, 20, (50, 40, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def command(folder: Path, data: Path, *words: str) -> int:
    out = () if "--out" in words else ("--out", str(folder / "out"))
    places = (
        "--data",
        str(data),
        "--work",
        str(folder / "work"),
        "--weights",
        str(folder / "weights"),
    )
    return main([*words, *places, *out, *NUMBERS])


def test_it_is_trained_and_becomes_a_model_file_again(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "weights", model(provenance={"imported": "somewhere"}))
    assert command(tmp_path, data, f"{NAME}@3,4", "--epochs", "2") == 0
    trained = read_model(weights_path(NAME, tmp_path / "out"))
    images = read_cifar10(data, "test")
    network, info = load_weights(weights_path(NAME, tmp_path / "out"))
    assert trained.layers == read_model(path).layers
    assert trained.accuracy == accuracy(network.fold(), images, CPU)
    assert (trained.test_images, trained.tested_on) == (48, "CIFAR-10, test")
    told = trained.provenance
    assert (told["epochs"], told["seed"], told["recipe"]["batch_size"]) == (2, 3, 16)
    assert told["data_sha256"] == images.sha256()
    assert told["seed_accuracies"].keys() == {"3", "4"}
    assert told["seed_accuracies"]["3"] == trained.accuracy
    assert told["continued_from"] == {
        "variant": NAME, "epochs": 0, "seed": 0, "accuracy": None,
        "recipe": {"imported": "somewhere"}, "sha256": file_sha256(path),
    }  # fmt: skip
    assert (info.epochs, info.seed_accuracies) == (2, told["seed_accuracies"])
    # It is served, and verified, and trained on.
    expected = network(torch.from_numpy(images.images)).detach().numpy()
    for engine in ("torch", "openvino"):
        spec = LoadSpec(NAME, weights_path(NAME, tmp_path / "out"), "cpu", torch.get_num_threads())
        found = get_loader(engine)(spec).run(images.images)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    arguments = ["--weights", str(tmp_path / "out"), "--data", str(data), "--device", "cpu"]
    assert verify.main(arguments) == 0
    again = ("--epochs", "1", "--out", str(tmp_path / "more"))
    assert command(tmp_path, data, str(weights_path(NAME, tmp_path / "out")), *again) == 0
    assert open_weights(weights_path(NAME, tmp_path / "more"))[1].epochs == 3
    # The same command once more finds all done.
    capsys.readouterr()
    assert command(tmp_path, data, str(weights_path(NAME, tmp_path / "out")), *again) == 0
    assert "step" not in capsys.readouterr().out


def test_it_learns(tmp_path: Path, data: Path) -> None:
    write(tmp_path / "weights", model())
    numbers = ("--set", "batch_size=48", "small_share=0", "vector_lr=0.02", "label_smoothing=0")
    assert command(tmp_path, data, NAME, "--epochs", "20", *numbers) == 0
    (log,) = (tmp_path / "work").glob("*.jsonl")
    losses = [json.loads(line)["loss"] for line in log.read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]


def test_a_variant_learns_from_the_original(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "weights"
    write(folder, model(accuracy=0.25))
    write(folder, model("my-net-root-4", 4, topology="root", degree=4), seed=1)
    taught = ("--recipe", "taught", "--teacher", NAME, "--epochs", "1")
    assert command(tmp_path, data, "my-net-root-4", *taught) == 0
    trained = read_model(weights_path("my-net-root-4", tmp_path / "out"))
    assert (trained.topology, trained.degree, trained.family) == ("root", 4, NAME)
    assert trained.provenance["recipe"]["teacher"] == f"{NAME}, 0.2500"


def test_other_weights_start_it_where_they_fit(tmp_path: Path, data: Path) -> None:
    source = write(tmp_path / "weights", model())
    write(tmp_path / "weights", model("my-net-root-4", 4), seed=1)
    own, of_source = (
        find_jobs(["my-net-root-4"], [0], tmp_path / "weights", init) for init in (None, source)
    )
    starts = []
    for jobs in (own, of_source):
        (trainee,) = jobs
        options = Options(tmp_path / "work", tmp_path / "out", Computing(CPU))
        recipe = Recipe(epochs=1, batch_size=16)
        run = Training([trainee], recipe, 0, read_cifar10(data, "train"), options).fleet.runs[0]
        starts.append(run.model.state_dict())
    files = [
        load_file(weights_path(name, tmp_path / "weights")) for name in ("my-net-root-4", NAME)
    ]
    np.testing.assert_array_equal(starts[0]["graph.conv2.weight"], files[0]["graph.conv2.weight"])
    whole = files[1]["graph.conv2.weight"]
    np.testing.assert_array_equal(starts[1]["graph.conv2.weight"][4:8], whole[4:8, 4:8])


def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path: Path, data: Path) -> None:
    write(tmp_path / "weights", model())
    jobs = find_jobs([NAME], [0], tmp_path / "weights")
    images = read_cifar10(data, "train")
    recipe = Recipe(epochs=2, batch_size=16, vector_lr=0.01)
    ends = []
    for place in ("whole", "stopped"):
        options = Options(tmp_path / place, tmp_path / f"{place}-out", Computing(CPU))
        if place == "stopped":
            with pytest.raises(OutOfTimeError):
                train(jobs, recipe, (images, images), replace(options, stop_at=0.0))
        train(jobs, recipe, (images, images), options)
        ends.append(load_file(weights_path(NAME, options.out)))
    for key, value in ends[0].items():
        np.testing.assert_array_equal(value, ends[1][key], err_msg=key)


def test_pictures_of_other_classes_give_it_another_last_layer(
    tmp_path: Path, pictures: Path
) -> None:
    path = write(tmp_path / "weights", model())
    assert command(tmp_path, pictures, NAME, "--epochs", "1", "--image-size", "48") == 0
    trained_path = weights_path(NAME, tmp_path / "out")
    trained = read_model(trained_path)
    assert (trained.classes, trained.image_size) == (("blue", "green", "red"), 48)
    assert (trained.test_images, trained.tested_on) == (6, f"{pictures.name}, val")
    assert [layer.size for layer in trained.layers] == [48, 24, 24, 24, 1, 1]
    before, after = load_file(path), load_file(trained_path)
    assert after["graph.linear.weight"].shape == (3, 16)
    assert before["graph.conv2.weight"].shape == after["graph.conv2.weight"].shape
    folders = ["--weights", str(tmp_path / "out"), "--data", str(pictures)]
    assert verify.main([*folders, "--device", "cpu"]) == 0
    threads = ["--threads", str(torch.get_num_threads())]
    assert calibrate.main([*folders, *threads, "--images", "7"]) == 0
    calibration = read_calibration(trained_path)
    assert (calibration.range_images, calibration.test_images) == (7, 6)
    assert calibration.accuracy["fp32"] == pytest.approx(trained.accuracy, abs=1e-6)
    # Some of every class.
    (low, high) = calibration.ranges[IMAGES]
    assert low < (40 - 120) / 60
    assert high > (200 - 100) / 62


def test_images_of_another_size_are_scaled_to_calibrate(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "out"
    write(tmp_path / "weights", model())
    assert command(tmp_path, data, NAME, "--epochs", "1", "--image-size", "48") == 0
    trained = read_model(weights_path(NAME, folder))
    threads = ["--threads", str(torch.get_num_threads())]
    arguments = ["--weights", str(folder), "--data", str(data), "--images", "16", *threads]
    assert calibrate.main(arguments) == 0
    calibration = read_calibration(weights_path(NAME, folder))
    assert calibration.accuracy["fp32"] == pytest.approx(trained.accuracy, abs=1e-6)


def test_classes_nobody_named_are_those_of_the_data(tmp_path: Path, data: Path) -> None:
    unnamed = tuple(f"class {number}" for number in range(10))
    write(tmp_path / "weights", model(classes=unnamed, accuracy=0.1))
    taught = ("--recipe", "taught", "--teacher", NAME, "--epochs", "1")
    assert command(tmp_path, data, NAME, *taught) == 0
    assert read_model(weights_path(NAME, tmp_path / "out")).classes == CLASSES


def refusal(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str]
) -> str:
    assert command(tmp_path, data, *words) == 2
    return capsys.readouterr().err


def test_what_cannot_be_trained_is_told(
    tmp_path: Path, data: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "weights"
    path = write(folder, model())
    write(folder, model("other", classes=CLASSES[::-1], accuracy=0.5))
    flat = Layer("flat", "flatten", 1, 16, 16 * 16 * 16, 1, ("pool",))
    last = Layer("last", "linear", 1, 16 * 16 * 16, 10, 1, ("flat",), bias=True)
    write_small(folder, model_of("flat", (*simple_layers()[:2], flat, last), classes=CLASSES))
    path.with_name("renamed.safetensors").write_bytes(path.read_bytes())
    shipped = str(weights_path("nin-orig", PRETRAINED_DIR))
    taught = ("--recipe", "taught", "--teacher")
    for data_set, words, expected in (
        (
            data,
            ["nobody"],
            f"no variant is called 'nobody', and {folder} has no nobody.safetensors",
        ),
        (data, [str(folder / "gone.safetensors")], "gone.safetensors does not exist"),
        (data, ["renamed"], "holds a network called my-net; expected my-net.safetensors"),
        (
            data,
            [shipped],
            "holds weights of nin-orig; expected that name, with --init for the file",
        ),
        (data, [NAME, str(path)], "my-net comes twice"),
        (data, [NAME, "--out", str(folder)], "and overwrite it; expected another folder for --out"),
        (data, [NAME, *taught, "other"], "class 0 is 'truck', in the data it is 'airplane'"),
        (pictures, [NAME, *taught, NAME], "has 10 classes, the data has 3"),
        (data, [NAME, "--init", str(weights_path("flat", folder))], "expected some of my-net"),
        (data, ["flat", "--epochs", "1"], "the recipe has images of 24 pixels: flat for images"),
    ):
        assert expected in refusal(tmp_path, data_set, capsys, words), words
    assert not (tmp_path / "out").exists()


def test_a_model_file_needs_a_folder_of_its_own(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, model())
    assert main([str(path), "--data", str(data)]) == 2
    assert (
        "my-net is a model file; expected a folder for it, as --out DIR" in capsys.readouterr().err
    )


def test_logits_of_several_layers_stay_as_many(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = (
        *layers()[:-1],
        *(replace(layers()[-1], name=f"head{number}", out_channels=5, path=f"graph.head{number}")
          for number in (1, 2)),
        Layer("both", "concat", 1, 10, 10, 1, ("head1", "head2")),
    )  # fmt: skip
    write(tmp_path / "weights", replace(model(), layers=parts))
    told = refusal(tmp_path, pictures, capsys, [NAME])
    assert "its logits come from 'both' (concat), for 3 classes expected a convolution" in told


def test_a_loss_that_is_no_number_ends_the_training(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "weights", model())
    words = [NAME, "--epochs", "4", "--set", "batch_size=16", "vector_lr=1e30"]
    assert main([
        *words, "--data", str(data), "--weights", str(tmp_path / "weights"), "--out",
        str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--device", "cpu",
    ]) == 2  # fmt: skip
    assert "the loss is nan; expected lower rates than muon_lr=0.04 vector_lr=1e+30" in (
        capsys.readouterr().err.replace("inf;", "nan;")
    )
    assert not (tmp_path / "out").exists()


def test_what_no_file_could_hold_is_told_before_the_training(tmp_path: Path, data: Path) -> None:
    write(tmp_path / "weights", model())
    (trainee,) = find_jobs([NAME], [0], tmp_path / "weights")
    images = read_cifar10(data, "train")
    classes = ("a\nb", *CLASSES[1:])
    options = Options(tmp_path / "work", tmp_path / "out", Computing(CPU), classes=classes)
    with pytest.raises(WeightsError, match="was not written: class 0 is"):
        Training([trainee], Recipe(epochs=1, batch_size=16), 0, images, options)


def test_a_convolution_without_normalisation_keeps_its_scale(tmp_path: Path, data: Path) -> None:
    """It matters there: the others are scaled to one unit per filter."""
    write(tmp_path / "weights", model())
    (trainee,) = find_jobs([NAME], [0], tmp_path / "weights")
    images = read_cifar10(data, "train")
    recipe = Recipe(epochs=4, batch_size=16, muon_lr=1e-5, vector_lr=1e-9, small_share=0)
    options = Options(tmp_path / "work", tmp_path / "out", Computing(CPU))
    fleet = Training([trainee], recipe, 0, images, options).fleet
    model_ = fleet.runs[0].model
    names = ("graph.features-conv1.weight", "graph.bare.weight", "graph.conv2.weight")
    with torch.no_grad():
        for name in names:
            model_.get_parameter(name).mul_(5)
    before = {name: model_.get_parameter(name).clone() for name in names}
    for _ in range(3):
        fleet.train_step()
    for name in names:
        after = model_.get_parameter(name)
        assert not torch.equal(after, before[name])
        expected = float(before[name].detach().norm()) if "bare" in name else len(after) ** 0.5
        assert float(after.detach().norm()) == pytest.approx(expected, rel=1e-3), name
