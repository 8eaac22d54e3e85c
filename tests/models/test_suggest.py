"""Groups that follow from the responses: same logits in another order, what is written, and refusals."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from rootmodels.layer import IMAGES, Layer
from rootmodels.layers import network_layers
from rootmodels.model_file import read_model, write_trained
from rootmodels.network import Network
from rootmodels.parameters import load_tensors
from rootmodels.source import read_source
from rootmodels.suggest import command
from rootmodels.suggest.channels import find_spaces
from rootmodels.suggest.patches import patch_moments, samples
from rootmodels.suggest.rewrite import regrouped, reordered
from rootmodels.suggest.study import study
from rootmodels.variants import get_variant
from rootmodels.weights import load_weights
from rootmodels.weights_info import weights_path
from rootserve.server.engines import openvino_cpu, torch_eager
from rootserve.server.engines.base import LoadSpec
from tests.support.model_files import CLASSES, all_kinds, conv, model_of, write_small

LAYERS = (
    conv("stem", IMAGES, 3, 8, 32, 3, activation="relu"),
    conv("a", "stem", 8, 16, 32, 3, activation="relu"),
    conv("b", "a", 16, 8, 32, 1, activation="relu"),
    Layer("pool", "max_pool", 2, 8, 8, 16, ("b",), stride=2),
    conv("c", "pool", 8, 12, 16, 3, activation="relu"),
    Layer("mean", "global_avg_pool", 16, 12, 12, 1, ("c",)),
    Layer("head", "linear", 1, 12, len(CLASSES), 1, ("mean",), bias=True),
)
TANGLED = (
    conv("stem", IMAGES, 3, 8, 32, 3, activation="relu"),
    conv("deep", "stem", 8, 8, 32, 3, groups=8, activation="relu"),
    conv("a", "deep", 8, 8, 32, 3, activation="silu"),
    Layer("sum", "add", 1, 8, 8, 32, ("a", "stem"), activation="relu"),
    conv("left", "sum", 8, 6, 32, 1),
    conv("right", "sum", 8, 4, 32, 3),
    Layer("both", "concat", 1, 10, 10, 32, ("right", "left")),
    Layer("scaled", "affine", 1, 10, 10, 32, ("both",), bias=True),
    Layer("squeezed", "adaptive_avg_pool", 32, 10, 10, 1, ("scaled",)),
    conv("gate", "squeezed", 10, 6, 1, 1, activation="sigmoid"),
    Layer("gated", "multiply", 1, 6, 6, 32, ("left", "gate")),
    Layer("small", "adaptive_avg_pool", 16, 6, 6, 2, ("gated",)),
    Layer("flat", "flatten", 1, 6, 24, 1, ("small",)),
    Layer("hidden", "linear", 1, 24, 12, 1, ("flat",), bias=True, activation="relu"),
    Layer("head", "linear", 1, 12, len(CLASSES), 1, ("hidden",), bias=True),
)
RNG = np.random.default_rng(0)
PICTURES: NDArray[np.uint8] = RNG.integers(0, 256, (6, 3, 32, 32), np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_small(tmp_path, model_of("my-net", LAYERS))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures to train on, and two to test with."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(14):
        split = "val" if number >= 12 else "train"
        path = folder / split / ("ant", "bee")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Blurred: neighbours say something of one another, as in photographs.
        small = RNG.integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(small).resize((32, 32), Image.Resampling.BILINEAR).save(path)
    return folder


def run(source: Path | str, data: Path, folder: Path, *more: str, degrees: str = "2,4") -> int:
    arguments = ["--data", str(data), "--images", "12", "--degrees", degrees, "--out", str(folder)]
    return command.main([str(source), *arguments, *more])


def trained(variant: str) -> tuple[tuple[Layer, ...], dict[str, NDArray[np.generic]]]:
    """The layers and tensors of an untrained variant, with statistics that are not those of a new one."""
    torch.manual_seed(0)
    network = Network(get_variant(variant))
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    rng = np.random.default_rng(0)
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor[:] = rng.normal(0, 0.2, tensor.shape)
        if name.endswith("running_var"):
            tensor[:] = rng.uniform(0.5, 1.5, tensor.shape)
    return network_layers(get_variant(variant)), state


def logits(variant: str, tensors: dict[str, NDArray[np.generic]]) -> torch.Tensor:
    network = Network(get_variant(variant)).eval()
    network.load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in tensors.items()})
    size = 64 if variant.startswith("resnet") else 32
    images = torch.from_numpy(np.resize(PICTURES, (2, 3, size, size)))
    with torch.inference_mode():
        result: torch.Tensor = network(images)
    return result


@pytest.mark.parametrize(("variant", "free"), [("nin-orig", 8), ("resnet50-v1.5", 37)])
def test_a_variant_in_any_order_gives_the_same_logits(variant: str, free: int) -> None:
    layers, tensors = trained(variant)
    rng = np.random.default_rng(1)
    spaces = {one.name: one for one in find_spaces(layers).values() if not one.fixed}
    chosen = {name: rng.permutation(one.channels) for name, one in spaces.items()}
    assert len(chosen) == free
    changed = reordered(layers, tensors, chosen)
    assert any(not np.array_equal(changed[name], tensors[name]) for name in tensors)
    expected = logits(variant, tensors)
    assert expected.std() > 1e-3
    torch.testing.assert_close(
        logits(variant, changed), expected, rtol=0, atol=1e-4 * float(expected.abs().max())
    )


@pytest.mark.parametrize("layers", [LAYERS, TANGLED, all_kinds()])
def test_a_model_file_in_any_order_gives_the_same_logits(
    tmp_path: Path, layers: Sequence[Layer]
) -> None:
    source = read_source(write_small(tmp_path, model_of("my-net", layers)))
    spaces = {one.name: one for one in find_spaces(layers).values() if not one.fixed}
    rng = np.random.default_rng(2)
    chosen = {name: rng.permutation(one.channels) for name, one in spaces.items()}
    assert chosen
    path = weights_path("other", tmp_path)
    tensors = reordered(source.model.layers, source.tensors, chosen)
    write_trained(path, replace(source.model, name="other"), tensors)
    expected = torch_eager.load(LoadSpec("my-net", source.path, "cpu", threads=1)).run(PICTURES)
    found = torch_eager.load(LoadSpec("other", path, "cpu", threads=1)).run(PICTURES)
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_samples_are_what_a_convolution_sees() -> None:
    layer = Layer(
        "x", "conv", (3, 2), 4, 5, (3, 5), padding=(1, 0, 2, 1), stride=(3, 1), dilation=(2, 1)
    )
    maps = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    part = torch.nn.Conv2d(4, 5, (3, 2), (3, 1), 0, (2, 1), bias=False)
    with torch.inference_mode():
        made = part(torch.nn.functional.pad(maps, (0, 1, 1, 2)))
        rows = samples(layer, maps, torch.Generator())
        found = rows @ part.weight.reshape(5, -1).T
    np.testing.assert_allclose(
        found.reshape(2, -1, 5).permute(0, 2, 1), made.reshape(2, 5, -1), atol=1e-5
    )


def test_sums_are_those_of_all_images(source: Path) -> None:
    module, _ = load_weights(source)
    together = patch_moments(module, PICTURES, ["c"], 32)["c"]
    assert together.samples == 6 * 64
    again = patch_moments(module, PICTURES, ["c"], 32)["c"]
    np.testing.assert_array_equal(together.scatter, again.scatter)
    # Another network sees larger images: these are scaled.
    assert patch_moments(module, PICTURES[:, :, ::2, ::2].copy(), ["a"], 32)["a"].samples == 6 * 64


def test_variants_are_permuted_fitted_and_served(
    source: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    assert run(source, data, folder) == 0
    printed = capsys.readouterr()
    told = json.loads((folder / "my-net-suggest.json").read_text())
    assert told["images"] == 12
    assert told["not_grouped"] == {"stem": "sees the images", "b": "1x1"}
    for degree in ("2", "4"):
        for name, sizes in (("a", (8, 16)), ("c", (8, 12))):
            one = told["degrees"][degree]["layers"][name]
            kept = one["energy_kept"]
            assert 1 >= kept["suggested"] >= kept["contiguous"] > 0
            assert kept["suggested"] > kept["random"]
            assert [len(members) for members in one["takes"]] == [sizes[0] // int(degree)] * int(
                degree
            )
            assert sorted(chain.from_iterable(one["makes"])) == list(range(sizes[1]))
    path = folder / "my-net-suggest-4.safetensors"
    model = read_model(path)
    assert (model.family, model.topology, model.degree, model.accuracy) == (
        "my-net",
        "own",
        4,
        None,
    )
    assert model.provenance["suggested"] == "my-net.safetensors"
    assert {layer.name: layer.groups for layer in model.layers if layer.kind == "conv"} == {
        "stem": 1, "a": 4, "b": 1, "c": 4,
    }  # fmt: skip
    before, after = load_file(source), load_file(path)
    takes = list(chain.from_iterable(told["degrees"]["4"]["layers"]["a"]["takes"]))
    np.testing.assert_array_equal(after["graph.stem.weight"], before["graph.stem.weight"][takes])
    assert (folder / "my-net-suggest.png").read_bytes().startswith(b"\x89PNG")
    spec = LoadSpec("my-net-suggest-4", path, "cpu", threads=1)
    expected = torch_eager.load(spec).run(PICTURES)
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(openvino_cpu.load(spec).run(PICTURES), expected, atol=1e-4)
    rows = [line.split() for line in printed.out.splitlines()]
    kept = told["degrees"]["2"]["layers"]["a"]["energy_kept"]
    assert ["a", "3x3", "8", "->", "16", "2", *(f"{kept[way]:.1%}" for way in kept)] in rows
    # It is made again, and takes its own place.
    assert run(source, data, folder, "--no-picture", degrees="4") == 0


def test_means_and_variances_stay_as_they_were() -> None:
    source = read_source(weights_path("nin-orig"))
    images = np.random.default_rng(4).integers(0, 256, (4, 3, 8, 8), np.uint8)
    images = images.repeat(4, axis=2).repeat(4, axis=3)
    looked_at = study(source, images, "conv3a")
    piece = looked_at.pieces[0]
    rng = np.random.default_rng(0)
    labels = {name: rng.permutation(np.arange(192) * 8 // 192) for name in ("conv2c", "conv3a")}
    grouped, changed = regrouped(
        source.model.layers, source.tensors, [piece], looked_at.means, labels
    )
    layer = next(layer for layer in grouped if layer.name == "conv3a")
    assert layer.groups == 8
    order = np.argsort(labels["conv3a"], kind="stable")
    norm, weight = f"{layer.norm}.running_", f"{layer.path}.weight"
    taken = np.argsort(labels["conv2c"], kind="stable").reshape(8, -1)
    mean = looked_at.means["conv3a"].reshape(192, -1)
    covariance = piece.energy._covariance.reshape(192, 9, 192, 9)
    old_weight = np.asarray(source.tensors[weight], np.float64).reshape(192, 192, 9)
    for row in range(0, 192, 17):
        filter_, channels = order[row], taken[row * 8 // 192]
        own = np.asarray(changed[weight], np.float64)[row].reshape(-1, 9)
        gives = np.sum(own * mean[channels]) - float(changed[f"{norm}mean"][row])
        gave = np.sum(old_weight[filter_] * mean) - float(source.tensors[f"{norm}mean"][filter_])
        assert gives == pytest.approx(gave, abs=2e-3)
        part = covariance[channels][:, :, channels]
        varies = np.einsum("cp,cpdq,dq->", own, part, own) / changed[f"{norm}var"][row]
        varied = np.einsum("cp,cpdq,dq->", old_weight[filter_], covariance, old_weight[filter_])
        assert varies == pytest.approx(varied / source.tensors[f"{norm}var"][filter_], rel=0.01)


def test_a_network_that_nobody_measured_is_grouped_with_a_warning(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of("raw", LAYERS, accuracy=None, test_images=0, tested_on="")
    source = write_small(tmp_path, model)
    assert run(source, data, tmp_path / "out", "--no-picture", "--no-fit", degrees="2") == 0
    assert "note: nobody has measured how accurate raw is" in capsys.readouterr().out
    provenance = read_model(tmp_path / "out/raw-suggest-2.safetensors").provenance
    assert provenance["fitted"] is False
    before = load_file(source)["graph.a.weight"]
    after = load_file(tmp_path / "out/raw-suggest-2.safetensors")["graph.a.weight"]
    assert after.shape == (16, 4, 3, 3)
    # By its filters' scale they are the original's.
    parts = json.loads((tmp_path / "out/raw-suggest.json").read_text())["degrees"]["2"]["layers"][
        "a"
    ]
    first, taken = parts["makes"][0][0], parts["takes"][0]
    ratio = after[0] / before[first][taken]
    np.testing.assert_allclose(ratio, np.full_like(ratio, ratio.mean()), rtol=1e-4)


def test_few_samples_are_told(
    source: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(source, data, tmp_path / "out", "--no-picture", "--images", "1", degrees="2") == 0
    assert "note: a: 64 samples of 72 values came, expected 288 or more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("degrees", "more", "words"),
    [
        ("5", [], "nothing can be in 5 groups: stem: sees the images; a: 8 channels do not divide"),
        ("2,16", [], "nothing can be in 16 groups"),
        ("2", ["--layers", "x*"], "no convolution's name is like 'x*'; there are: stem, a, b, c"),
        (
            "2",
            ["--layers", "b"],
            "nothing can be in 2 groups: stem: not chosen; a: not chosen; b: 1x1",
        ),
        ("2", ["--images", "13"], "holds 12 images, expected at least 13"),
        ("2", ["--picture", "energy.txt"], "expected one of .png, .svg, .pdf"),
        ("2", ["--data", "/nowhere"], "/nowhere"),
    ],
)
def test_refusals(
    source: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    degrees: str,
    more: list[str],
    words: str,
) -> None:
    folder = source.parent / "out"
    assert run(source, data, folder, *more, degrees=degrees) == 2
    assert words in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nin-orig", "holds no weights of nin-orig; expected trained ones"),
        ("nin-none", "no variant is called 'nin-none'"),
        ("none.safetensors", "does not exist"),
    ],
)
def test_networks_that_are_not_there(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    assert run(name, data, tmp_path / "out", "--weights", str(tmp_path)) == 2
    assert words in capsys.readouterr().err


def test_a_variant_is_no_original(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("nin-root-4", data, tmp_path / "out") == 2
    assert "is a variant, root-4; expected its original" in capsys.readouterr().err


def test_files_of_others_keep_their_place(
    source: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write_small(folder, model_of("my-net-suggest-4"))
    assert run(source, data, folder) == 2
    assert "is there already, of another network" in capsys.readouterr().err
    model = model_of("my-net-suggest-4", provenance={"suggested": "my-net.safetensors"})
    write_small(folder, model)
    assert run(source, data, folder) == 2
    assert "was measured since; expected another --out" in capsys.readouterr().err


def test_without_matplotlib_it_says_what_brings_it(
    source: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(source, data, source.parent / "out") == 2
    assert "pip install 'rootserve[client]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--degrees", "1", "'1' came, expected whole numbers of 2 to 1024"),
        ("--degrees", "4,x", "'4,x' came"),
        ("--images", "0", "'0' came, expected a whole number of 1 or more"),
    ],
)
def test_arguments_that_are_none(
    source: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    words: str,
) -> None:
    with pytest.raises(SystemExit):
        run(source, data, source.parent / "out", option, value)
    assert words in capsys.readouterr().err


def test_the_source_of_a_variant_is_the_model_of_its_weights() -> None:
    path = weights_path("nin-orig")
    source = read_source(path)
    tensors, _, _ = load_tensors(path)
    assert (source.model.name, source.model.family) == ("nin-orig", "nin")
    np.testing.assert_array_equal(
        source.tensors["graph.conv2a.weight"], tensors["body.conv2a.conv.weight"]
    )


@pytest.mark.parametrize("page", ["suggest.md", "your-network.md"])
def test_commands_of_the_pages_are_understood(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    start = "python -m rootmodels suggest "
    commands = [line for line in text.splitlines() if line.startswith(start)]
    assert commands
    for line in commands:
        args = command._parser().parse_args(shlex.split(line.removeprefix(start)))
        assert args.degrees
