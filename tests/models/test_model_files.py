"""A network that a file describes, in every engine and precision, calibrated, verified and trained on."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from rootmodels import cifar10_facts as cifar10
from rootmodels import verify
from rootmodels.calibration import read_calibration
from rootmodels.cifar10 import read_cifar10
from rootmodels.layer import IMAGES, Layer
from rootmodels.model import Model
from rootmodels.model_content import read_content
from rootmodels.model_file import open_weights, read_model
from rootmodels.network import Network
from rootmodels.parameters import load_network
from rootmodels.train_run import accuracy
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import WeightsError, WeightsInfo, weights_path
from rootserve.server import calibrate
from rootserve.server.engines import fake, openvino_cpu, openvino_profile, torch_eager
from rootserve.server.engines.base import EngineError, LoadSpec
from rootserve.server.engines.choice import check_logits
from rootserve.server.engines.profiling import Profiler
from rootserve.server.engines.torch_profile import load as load_torch_profile
from tests.support.model_files import (
    CLASSES,
    all_kinds,
    content_of,
    conv,
    model_of,
    mutated,
    simple_layers,
    write_small,
)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)


def spec_of(folder: Path, model: Model) -> LoadSpec:
    return LoadSpec(model.name, write_small(folder, model), "cpu", threads=1)


def same_logits(spec: LoadSpec, images: NDArray[np.uint8]) -> None:
    expected = torch_eager.load(spec).run(images)
    assert expected.shape == (len(images), spec.classes())
    assert np.ptp(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(openvino_cpu.load(spec).run(images), expected, atol=1e-4)


def test_engines_agree_on_a_network_of_every_kind(
    tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    spec = spec_of(tmp_path, model_of("any-net", all_kinds()))
    same_logits(spec, images)
    means = images.reshape(6, -1).mean(axis=1)
    found = fake.load(spec).run(images)
    np.testing.assert_allclose(found, means[:, None] + np.arange(len(CLASSES)), rtol=1e-6)


def test_whatever_is_read_is_computed_alike_by_every_engine(
    tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    """Graphs that were changed at random: most are refused, and no engine has to refuse another one."""
    sound = content_of(model_of("any-net", all_kinds()))
    rng, taken = np.random.default_rng(1), 0
    for _ in range(2000):
        content = mutated(copy.deepcopy(sound), rng)
        try:
            model = read_content(json.dumps(content))
        except ValueError:
            continue
        if model.name != "any-net" or content == sound:
            continue
        taken += 1
        spec = spec_of(tmp_path, model)
        shape = (2, 3, model.image_size, model.image_size)
        expected = torch_eager.load(spec).run(np.resize(images, shape))
        found = openvino_cpu.load(spec).run(np.resize(images, shape))
        tolerance = 1e-4 * max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, atol=tolerance)
    assert taken > 20


C = {"in_channels": 8, "out_channels": 8}
ONE_LAYER: dict[str, tuple[Layer, ...]] = {
    **{
        f"conv, {name}": (conv("x", "stem", 8, 8, 32, 3, activation=name),)
        for name in ("none", "relu", "leaky_relu", "relu6", "silu", "hardswish", "hardsigmoid", "gelu",
                     "gelu_tanh", "sigmoid")
    },
    "leaky": (conv("x", "stem", 8, 8, 32, 3, activation="leaky_relu", slope=0.2),),
    "rectangular": (Layer("x", "conv", (3, 5), 8, 8, 32, ("stem",), padding=(1, 2)),),
    "strides": (Layer("x", "conv", 3, 8, 8, (16, 11), ("stem",), stride=(2, 3), padding=1),),
    "dilations": (Layer("x", "conv", 3, 8, 8, 32, ("stem",), dilation=(2, 3), padding=(2, 3)),),
    "uneven padding": (Layer("x", "conv", 3, 8, 8, 32, ("stem",), padding=(0, 1, 2, 1)),),
    "depthwise": (Layer("x", "conv", 3, 8, 16, 32, ("stem",), padding=1, groups=8),
                  conv("y", "x", 16, 8, 32, 1)),
    "two groups": (conv("x", "stem", 8, 8, 32, 3, groups=2),),
    "affine": (Layer("x", "affine", 1, size=32, inputs=("stem",), activation="relu", **C),),
    "max pool": (Layer("x", "max_pool", (3, 2), size=(16, 16), inputs=("stem",), stride=2,
                       padding=(1, 0), **C),),
    "max pool up": (Layer("x", "max_pool", 3, size=16, inputs=("stem",), stride=2, ceil=True, **C),),
    "max pool up, padded": (Layer("x", "max_pool", 2, size=17, inputs=("stem",), stride=2, padding=1,
                                  ceil=True, **C),),
    "max pool that drops": (Layer("x", "max_pool", 2, size=11, inputs=("stem",), stride=3, padding=1,
                                  ceil=True, **C),),
    "max pool, dilated": (Layer("x", "max_pool", 3, size=28, inputs=("stem",), dilation=2, **C),),
    "average": (Layer("x", "avg_pool", 3, size=32, inputs=("stem",), padding=1, **C),),
    "average, counted": (Layer("x", "avg_pool", 3, size=32, inputs=("stem",), padding=1,
                               count_padding=True, **C),),
    "average, up": (Layer("x", "avg_pool", 3, size=17, inputs=("stem",), stride=2, padding=1,
                          ceil=True, **C),),
    "average, up, counted": (Layer("x", "avg_pool", 3, size=17, inputs=("stem",), stride=2, padding=1,
                                   ceil=True, count_padding=True, **C),),
    "average that drops, counted": (Layer("x", "avg_pool", 2, size=11, inputs=("stem",), stride=3,
                                          padding=1, ceil=True, count_padding=True, **C),),
    "adaptive": (Layer("x", "adaptive_avg_pool", 1, size=(7, 5), inputs=("stem",), **C),),
    "adaptive, larger": (Layer("x", "adaptive_avg_pool", 1, size=40, inputs=("stem",), **C),),
    "add": (conv("y", "stem", 8, 8, 32, 1), Layer("x", "add", 1, size=32, inputs=("stem", "y"), **C)),
    "twice the same": (Layer("x", "add", 1, size=32, inputs=("stem", "stem"), **C),),
    "gate": (Layer("y", "adaptive_avg_pool", 1, size=1, inputs=("stem",), activation="sigmoid", **C),
             Layer("x", "multiply", 1, size=32, inputs=("stem", "y"), **C)),
    "concat": (Layer("y", "slice", 1, 8, 3, 32, ("stem",), start=2),
               Layer("x", "concat", 1, 19, 19, 32, ("stem", "y", "stem")),
               conv("z", "x", 19, 8, 32, 1)),
    "shuffle": (Layer("x", "shuffle", 1, size=32, inputs=("stem",), groups=4, **C),),
    "flatten": (Layer("y", "max_pool", 8, size=4, inputs=("stem",), stride=8, **C),
                Layer("f", "flatten", 1, 8, 128, 1, ("y",)),
                Layer("l", "linear", 1, 128, 16, 1, ("f",), bias=True, activation="hardswish"),
                Layer("n", "affine", 1, 16, 16, 1, ("l",)),
                Layer("s", "slice", 1, 16, 8, 1, ("n",), start=8),
                Layer("x", "unflatten", 1, 8, 2, 2, ("s",)),
                conv("z", "x", 2, 8, 2, 1)),
}  # fmt: skip


@pytest.mark.parametrize("middle", ONE_LAYER.values(), ids=ONE_LAYER)
def test_engines_agree_on_each_kind_of_layer(
    tmp_path: Path, images: NDArray[np.uint8], middle: tuple[Layer, ...]
) -> None:
    """Maps of 32 x 32 go in, and come out with whatever size; a convolution tells their pixels apart."""
    last = middle[-1]
    height, width = last.sizes
    layers = (
        conv("stem", IMAGES, 3, 8, 32, 3, activation="relu"),
        *middle,
        Layer("corner", "conv", (2, 2), 8, 8, (height - 1, width - 1), (last.name,)),
        Layer("all", "flatten", 1, 8, 8 * (height - 1) * (width - 1), 1, ("corner",)),
        Layer("head", "linear", 1, 8 * (height - 1) * (width - 1), 7, 1, ("all",)),
    )
    same_logits(spec_of(tmp_path, model_of("a-net", layers)), images)


def test_profiles_tell_of_every_layer(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    spec = spec_of(tmp_path, model_of("any-net", all_kinds()))
    names = [layer.name for layer in all_kinds()]
    profilers: list[Profiler] = [openvino_profile.load(spec), load_torch_profile(spec)]
    for profiler in profilers:
        times = profiler.run(images[:1])
        told = times.layers.keys() | profiler.computed_in.keys()
        assert told <= {*names}
        assert {"stem", "wide", "dilated", "gate", "head"} <= told


@pytest.fixture
def data(tmp_path: Path, sample_path: Path) -> Path:
    """A data set of 64 images, for training and for testing."""
    table = pq.read_table(sample_path).slice(0, 64)
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def cifar_model(**more: object) -> Model:
    layers = simple_layers(classes=10)
    return model_of("my-net", layers, classes=cifar10.CLASSES, **more)


def test_int8_is_computed_where_it_was_calibrated(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in (cifar_model(), replace(cifar_model(), name="any-net", layers=(
        *all_kinds()[:-1], replace(all_kinds()[-1], out_channels=10),
    ))):  # fmt: skip
        spec = replace(spec_of(tmp_path / "weights", model), precision="int8")
        assert spec.weights is not None
        with pytest.raises(EngineError, match=f"has no {model.name}.calibration.json beside it"):
            openvino_cpu.load(spec)
        arguments = [model.name, "--weights", str(spec.weights.parent), "--data", str(data)]
        assert calibrate.main([*arguments, "--images", "64"]) == 0
        assert f"{model.name}" in capsys.readouterr().out
        calibration = read_calibration(spec.weights)
        assert set(calibration.ranges) == {IMAGES, *(layer.name for layer in model.layers)}
        assert "int8_7bit" in calibration.accuracy
        test = read_cifar10(data, "test").images
        rounded = openvino_cpu.load(spec).run(test)
        exact = openvino_cpu.load(replace(spec, precision="fp32")).run(test)
        check_logits(rounded, exact, "int8")
        assert np.abs(rounded - exact).max() > 1e-5


def test_verify_measures_it(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "weights"
    path = write_small(folder, cifar_model())
    model, _ = load_weights(path)
    measured = accuracy(model, read_cifar10(data, "test"), torch.device("cpu"))
    arguments = ["--weights", str(folder), "--data", str(data), "--device", "cpu"]
    write_small(folder, cifar_model(accuracy=measured, test_images=64))
    assert verify.main(arguments) == 0
    assert verify.main(["my-net", *arguments]) == 0
    write_small(folder, cifar_model(accuracy=measured + 0.1, test_images=64))
    assert verify.main(arguments) == 1
    write_small(folder, cifar_model(accuracy=None))
    capsys.readouterr()
    assert verify.main(arguments) == 2
    told = capsys.readouterr().err
    assert f"does not say how accurate it is; measured {measured:.4f} over 64 images" in told
    write_small(folder, replace(cifar_model(), classes=tuple("abcdefghij")))
    assert verify.main(arguments) == 2
    assert "class 0 is 'a', in" in capsys.readouterr().err
    write_small(folder, replace(model_of("my-net"), accuracy=0.5))
    assert verify.main(arguments) == 2
    assert f"has 7 classes, {data} has 10" in capsys.readouterr().err


def test_it_is_trained_on_and_becomes_a_file_again(
    tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    """Such a file holds normalisations as well, and engines fold them."""
    path = write_small(tmp_path, model_of("my-net"))
    model, info = load_weights(path)
    optimizer = torch.optim.SGD(model.train().parameters(), 0.01)
    loss = functional.cross_entropy(model(torch.from_numpy(images)), torch.arange(6))
    loss.backward()
    optimizer.step()
    save_weights(path, model, replace(info, accuracy=0.25, epochs=3))
    again, read = load_weights(path)
    assert (read.accuracy, read.epochs, read.recipe) == (0.25, 3, info.recipe)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, atol=1e-3, rtol=1e-3)


def test_normalisations_are_kept_and_folded(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    first, *others = simple_layers()
    described = model_of("my-net", (replace(first, bias=False, norm="yes", epsilon=1e-3), *others))
    variant, _ = open_weights(write_small(tmp_path, described))
    path = weights_path("my-net", tmp_path)
    described = read_model(path)
    # Written folded, as all imported ones are; this one is to hold its normalisation.
    layers = (
        replace(described.layers[0], bias=False, norm="graph.features-conv1-norm", epsilon=1e-3),
        *described.layers[1:],
    )
    model = Network(replace(described, layers=layers).variant)
    with torch.no_grad():
        model.train()(torch.from_numpy(images))
    save_weights(path, model, WeightsInfo("my-net", 0.5, 10, 1, 0, "", {}))
    assert read_model(path).layers == layers
    spec = LoadSpec("my-net", path, "cpu", 1)
    with torch.inference_mode():
        expected = load_weights(path)[0](torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(torch_eager.load(spec).run(images), expected, atol=1e-4)
    np.testing.assert_allclose(openvino_cpu.load(spec).run(images), expected, atol=1e-4)
    assert variant.name == "my-net"


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    path = write_small(tmp_path, model_of("my-net"))
    spec = LoadSpec("your-net", path, "cpu", 1)
    for ask in (spec.network, spec.image_size, spec.classes):
        with pytest.raises(WeightsError, match="holds weights of my-net, not of your-net"):
            ask()
    with pytest.raises(WeightsError, match="holds weights of my-net, not of nin-orig"):
        load_network(path, LoadSpec("nin-orig", None, "cpu", 1).network().variant)
