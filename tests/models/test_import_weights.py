"""A state dict in torchvision's layout becomes a weights file, and what is none is refused by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from rootmodels.__main__ import COMMANDS
from rootmodels.network import Network
from rootmodels.parameters import load_network
from rootmodels.variants import get_variant
from rootmodels.weights_info import read_info, weights_path
from tests.support.plain_resnet50 import State, reference_logits, state_dict

CLASSES = [f"thing {index}" for index in range(7)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("import") / "theirs.safetensors"
    save_file(state_dict(), path)
    return path


@pytest.fixture(scope="module")
def classes(source: Path) -> Path:
    path = source.with_name("classes.txt")
    path.write_text("\n".join(CLASSES) + "\n")
    return path


def run(*arguments: object) -> int:
    return COMMANDS["import"]([str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ["resnet50-orig", "resnet50-v1.5"])
def test_a_state_dict_is_served_as_it_is(
    name: str, source: Path, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights"
    assert (
        run(source, "--variant", name, "--classes", classes, "--accuracy", 0.8, "--out", out) == 0
    )
    assert f"--weights {out} --models {name}" in capsys.readouterr().out
    path = weights_path(name, out)
    info = read_info(path)
    assert (info.variant, info.accuracy, list(info.classes)) == (name, 0.8, CLASSES)
    assert info.recipe["imported"] == "theirs.safetensors"
    images = torch.randint(0, 256, (2, 3, 70, 70), generator=torch.Generator().manual_seed(0))
    state = {key: torch.from_numpy(value) for key, value in state_dict().items()}
    with torch.inference_mode():
        expected = reference_logits(
            state, images.float(), (1, 1, 1, 1), stride_on_3x3=name == "resnet50-v1.5"
        )
        module = Network.from_folded(load_network(path, get_variant(name)))
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(module(images), expected, atol=1e-4, rtol=1e-4)


def test_without_names_classes_have_numbers_and_counters_may_be_missing(
    source: Path, tmp_path: Path
) -> None:
    state = {k: v for k, v in state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "s.safetensors")
    arguments = ("--variant", "resnet50-orig", "--image-size", 64, "--out", tmp_path)
    assert run(tmp_path / "s.safetensors", *arguments) == 0
    info = read_info(tmp_path / "resnet50-orig.safetensors")
    assert (info.accuracy, info.image_size) == (None, 64)
    assert info.classes == tuple(f"class {index}" for index in range(7))


def refused(
    capsys: pytest.CaptureFixture[str], path: Path, state: State, *arguments: object
) -> str:
    save_file(state, path)
    assert run(path, "--out", path.parent / "out", *arguments) == 2
    assert not (path.parent / "out").exists()
    return capsys.readouterr().err


def test_a_wrong_state_dict_is_refused_by_what_it_lacks_and_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.safetensors"
    variant = ("--variant", "resnet50-v1.5")
    good = state_dict()

    renamed = {key.replace("layer1.0.conv1", "layer1.0.other"): good[key] for key in good}
    words = refused(capsys, path, renamed, *variant)
    assert "missing: layer1.0.conv1.weight; unexpected: layer1.0.other.weight" in words

    shallow = {key: value for key, value in good.items() if not key.startswith("layer3.5")}
    words = refused(capsys, path, shallow, *variant)
    assert "missing: layer3.5.bn1.bias, " in words
    assert "more" in words

    words = refused(capsys, path, good, "--variant", "resnet50-root-16")
    assert "tensor layer1.0.conv2.weight is [64, 64, 3, 3], " in words
    assert "resnet50-root-16 has [64, 4, 3, 3]" in words

    words = refused(capsys, path, good | {"fc.bias": np.full(7, np.nan, np.float32)}, *variant)
    assert "tensor fc.bias has values that are not finite" in words

    without = {key: value for key, value in good.items() if not key.startswith("fc.")}
    words = refused(capsys, path, without, *variant)
    assert "missing: fc.bias, fc.weight" in words


def test_other_bad_input_is_refused(
    source: Path, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*arguments: object) -> str:
        assert run(*arguments, "--out", tmp_path / "out") == 2
        return capsys.readouterr().err

    variant = ("--variant", "resnet50-v1.5")
    (tmp_path / "few.txt").write_text("a\nb\n")
    words = error(source, *variant, "--classes", tmp_path / "few.txt")
    assert "2 classes came" in words
    assert "has 7 logits" in words
    (tmp_path / "gap.txt").write_text("a\n\nb\n")
    assert "line 2 is empty" in error(source, *variant, "--classes", tmp_path / "gap.txt")
    assert "cannot be read" in error(source, *variant, "--classes", tmp_path / "none.txt")
    assert "accuracy is 80.0, expected 0 to 1" in error(source, *variant, "--accuracy", 80)
    assert "expected 16 to 1024 pixels" in error(source, *variant, "--image-size", 4)
    assert "no variant is called 'resnet50'" in error(source, "--variant", "resnet50")
    assert "expected a safetensors file" in error(classes, *variant)
    assert "expected a safetensors file" in error(tmp_path / "none", *variant)
