"""``python -m rootmodels import SOURCE`` writes a model file of any module, or says what is wrong with it."""

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from rootmodels import import_network
from rootmodels.__main__ import COMMANDS
from rootmodels.cost import layer_cost
from rootmodels.model_file import read_model
from rootmodels.network import Network
from rootmodels.parameters import load_network
from rootmodels.trace.module import trace_module
from rootmodels.trace.sources import make_module

MODULE = """
import torch
from torch import nn

def conv(channels, filters, **options):
    return nn.Conv2d(channels, filters, 3, padding=1, bias=False, **options)

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        # Names that torch's modules and this project's have, too.
        self.layers = nn.Sequential(conv(3, 8, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.linear = nn.Linear(8, 4)

    def forward(self, images):
        return self.linear(self.layers(images).mean((2, 3)))

class Forgets(Own):
    def forward(self, images):
        return super().forward(images) + torch.randn(4)

made = Own()
text = "no module"

def fails():
    raise RuntimeError("of its own")
"""
NAMES = ["cat", "dog", "owl", "fox"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_network.py").write_text(MODULE)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_network", None)


def run(*arguments: object) -> int:
    return COMMANDS["import"]([str(argument) for argument in arguments])


def test_a_module_of_ones_own_with_its_weights(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    module = make_module("own_network:Own")
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    state = {key: value for key, value in state.items() if "num_batches" not in key}
    save_file(state, place / "state.safetensors")
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    out = place / "weights"
    assert (
        run(
            "own_network:Own", "--weights", place / "state.safetensors", "--name", "own-net",
            "--image-size", 40, "--mean", "0.5,0.4,0.3", "--std", "0.2,0.25,0.3", "--crop", "0.875",
            "--classes", place / "classes.txt", "--accuracy", 0.75, "--out", out,
        )
        == 0
    )  # fmt: skip
    said = capsys.readouterr().out
    assert "own-net.safetensors: 3 layers, 4 classes, 252 parameters, 86,432 multiply-" in said
    assert f"--weights {out} --models own-net" in said

    model = read_model(out / "own-net.safetensors")
    assert (model.name, model.image_size, model.crop) == ("own-net", 40, Fraction(7, 8))
    assert (list(model.classes), model.accuracy) == (NAMES, 0.75)
    assert model.provenance["imported"] == "own_network:Own"
    assert model.provenance["weights"] == "state.safetensors"
    images = torch.randint(0, 256, (3, 3, 40, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        normalised = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
            3, 1, 1
        )
        served = Network.from_folded(load_network(out / "own-net.safetensors", model.variant))
        torch.testing.assert_close(served(images), module(normalised), atol=1e-5, rtol=1e-5)


def test_a_module_that_is_there_gets_images_as_they_are(place: Path) -> None:
    path = place / "made.safetensors"
    assert run("own_network:made", "--name", "made", "--image-size", 32, "--out", path) == 0
    model = read_model(path)
    assert (model.mean, model.std) == ((0, 0, 0), (255, 255, 255))
    assert model.classes == ("class 0", "class 1", "class 2", "class 3")
    assert set(load_file(path)) >= {"graph.layers-0.weight", "graph.layers-0-norm.running_var"}


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nothing", {}, "'nothing' came, expected MODULE:FACTORY, torchvision:NAME or timm:NAME"),
        ("resnet.safetensors", {}, "is a file; expected MODULE:FACTORY"),
        ("none_such:Own", {}, "ModuleNotFoundError: No module named 'none_such'"),
        ("own_network:Other", {}, "own_network has no 'Other'"),
        ("own_network:text", {}, "gives str, expected a torch module"),
        ("own_network:fails", {}, "own_network.py:26: RuntimeError: of its own"),
        ("own_network:Forgets", {}, "give logits that are off by"),
        ("torchvision:resnet", {}, "torchvision has no classifier 'resnet'"),
        ("timm:none_such", {}, "Unknown model (none_such)"),
        ("own_network:Own", {"name": "../own"}, "--name '../own': expected small letters"),
        ("own_network:Own", {"name": "nin-orig"}, "a variant of the family nin"),
        (
            "own_network:Own",
            {"out": "other.safetensors"},
            "a file of own is called own.safetensors",
        ),
        ("own_network:Own", {"classes": "few.txt"}, "2 classes came, the module gives 4 logits"),
        ("own_network:Own", {"weights": "none.safetensors"}, "cannot be read"),
        ("own_network:Own", {"weights": "classes.txt"}, "expected a safetensors file"),
        (
            "own_network:Own",
            {"weights": "wrong.safetensors"},
            "missing: layers.1.bias, layers.1.running_mean, layers.1.running_var, layers.1.weight; "
            "unexpected: other; of another shape: linear.weight",
        ),
    ],
)
def test_what_cannot_be_imported_is_told(
    source: str,
    options: dict[str, str],
    words: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    (place / "few.txt").write_text("a\nb\n")
    wrong = {
        "linear.weight": (4, 9),
        "linear.bias": (4,),
        "layers.0.weight": (8, 3, 3, 3),
        "other": (1,),
    }
    save_file({k: np.ones(v, np.float32) for k, v in wrong.items()}, place / "wrong.safetensors")
    before = {path.name for path in place.iterdir()}
    given = {"name": "own", "image-size": "32", "out": "out"} | options
    assert run(source, *(word for key in given for word in (f"--{key}", given[key]))) == 2
    assert words in capsys.readouterr().err
    assert {path.name for path in place.iterdir()} - before <= {"__pycache__"}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--mean=0.5,0.5", "expected three numbers for red, green and blue"),
        ("--mean=123.7,116.3,103.5", "expected those of images in 0..1"),
        ("--std=0.2,0,0.2", "expected those of images in 0..1, above 0"),
        ("--image-size=2000", "expected 16 to 1024 pixels"),
        ("--crop=7/0", "expected 0.25 to 1"),
        ("--accuracy=80", "expected 0 to 1"),
    ],
)
def test_bad_numbers_are_refused(
    option: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("own_network:Own", "--name", "own", "--image-size", 32, option)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "source",
    [
        "torchvision:resnet18",
        "torchvision:squeezenet1_1",
        "torchvision:mobilenet_v3_small",
        "torchvision:shufflenet_v2_x0_5",
        "timm:seresnet18",
    ],
)
def test_networks_of_torchvision_and_timm(source: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "n.safetensors"
    assert run(source, "--name", "n", "--image-size", 64, "--out", path) == 0
    model = read_model(path)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        make_module(source)(torch.zeros(1, 3, 64, 64))
    assert 2 * sum(layer_cost(layer).macs for layer in model.layers) == counter.get_total_flops()


def test_as_many_classes_as_there_are_names(place: Path) -> None:
    out = place / "weights"
    source = ("torchvision:squeezenet1_1", "--classes", place / "classes.txt")
    assert run(*source, "--name", "four", "--image-size", 64, "--out", out) == 0
    assert list(read_model(out / "four.safetensors").classes) == NAMES


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer_norm at .*convnext.py:\d+ .*LayerNorm2d"):
        trace_module(make_module("torchvision:convnext_tiny"), 32)


def test_layers_that_do_not_give_the_logits_are_not_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(import_network, "TOLERANCE", 0.0)
    assert run("own_network:Own", "--name", "own", "--image-size", 32, "--out", place / "out") == 2
    assert "off by" in capsys.readouterr().err
    assert not (place / "out").exists()
