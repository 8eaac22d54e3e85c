"""Variants in filter groups, written as model files: what is in them, what engines make of them, refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rootmodels import derive_roots
from rootmodels.layer import IMAGES, Layer
from rootmodels.model import Model
from rootmodels.model_file import read_model, write_model
from rootserve.server.engines import openvino_cpu, torch_eager
from rootserve.server.engines.base import LoadSpec
from tests.support.model_files import CLASSES, conv, model_of, random_parameters, write_small

LAYERS = (
    conv("stem", IMAGES, 3, 8, 32, 3, activation="relu"),
    conv("a", "stem", 8, 8, 32, 3, activation="relu"),
    conv("b", "a", 8, 8, 32, 1, activation="relu"),
    Layer("pool", "max_pool", 2, 8, 8, 16, ("b",), stride=2),
    conv("c", "pool", 8, 8, 16, 3, activation="relu"),
    Layer("mean", "global_avg_pool", 16, 8, 8, 1, ("c",)),
    Layer("head", "linear", 1, 8, len(CLASSES), 1, ("mean",), bias=True),
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_small(tmp_path, model_of("my-net", LAYERS))


def run(source: Path, degree: str = "2,4", *more: str) -> int:
    out = str(source.parent / "out")
    arguments = [str(source), "--topology", "root", "--degree", degree, "--out", out, *more]
    return derive_roots.main(arguments)


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_variants_hold_the_connections_within_their_groups(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(source) == 0
    printed = capsys.readouterr().out
    model = read_model(source.parent / "out/my-net-root-4.safetensors")
    assert (model.family, model.topology, model.degree) == ("my-net", "root", 4)
    assert (model.accuracy, model.test_images, model.tested_on) == (None, 0, "")
    assert model.provenance["rooted"] == "my-net.safetensors"
    groups = {layer.name: layer.groups for layer in model.layers if layer.kind == "conv"}
    assert groups == {"stem": 1, "a": 4, "b": 1, "c": 2}
    before = load_file(source)
    after = load_file(source.parent / "out/my-net-root-4.safetensors")
    for key, tensor in after.items():
        if key not in ("graph.a.weight", "graph.c.weight"):
            np.testing.assert_array_equal(tensor, before[key])
    for filter_ in range(8):
        first = filter_ // 2 * 2
        np.testing.assert_array_equal(
            after["graph.a.weight"][filter_], before["graph.a.weight"][filter_, first : first + 2]
        )
    assert [line.split() for line in printed.splitlines() if line.startswith("c ")] == [
        ["c", "3x3", "8", "->", "8", "1", "2"]
    ]
    assert (source.parent / "out/my-net-root.png").read_bytes().startswith(b"\x89PNG")


def test_engines_agree_on_a_variant(source: Path) -> None:
    assert run(source, "2,4", "--no-picture") == 0
    assert not list(source.parent.glob("out/*.png"))
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)
    path = source.parent / "out/my-net-root-4.safetensors"
    spec = LoadSpec("my-net-root-4", path, "cpu", threads=1)
    expected = torch_eager.load(spec).run(images)
    assert np.isfinite(expected).all()
    assert np.ptp(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(openvino_cpu.load(spec).run(images), expected, atol=1e-4)


def test_what_this_command_made_is_made_again(source: Path) -> None:
    assert run(source, "2", "--no-picture") == 0
    assert run(source, "2", "--no-picture") == 0


def put(source: Path, model: Model) -> None:
    folder = source.parent / "out"
    folder.mkdir()
    parameters = random_parameters(model.layers)
    write_model(folder / "my-net-root-4.safetensors", model, parameters)


def test_a_file_of_another_network_keeps_its_place(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(source, model_of("my-net-root-4"))
    assert run(source) == 2
    assert "is there already, of another network; expected another --out" in told(capsys)
    assert not (source.parent / "out/my-net-root-2.safetensors").exists()


def test_a_file_that_was_trained_keeps_its_place(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = tuple(replace(layer, groups=4) if layer.name == "a" else layer for layer in LAYERS)
    put(source, model_of("my-net-root-4", layers))
    assert run(source) == 2
    assert "was trained or measured since" in told(capsys)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--layers", "x*"], "no convolution's name is like 'x*'; there are: stem, a, b, c"),
        (["--layers", "b"], "nothing can be grouped as root-2: stem, a, c: not chosen; b: 1x1"),
        (["--picture", "costs.txt"], "expected one of .png, .svg, .pdf"),
    ],
)
def test_refusals(
    source: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert run(source, "2", *more) == 2
    assert words in told(capsys)
    assert not (source.parent / "out").exists()


def test_without_matplotlib_it_says_what_brings_it(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(source) == 2
    assert "pip install 'rootserve[client]'" in told(capsys)
    assert not (source.parent / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--topology", "bush", "invalid choice: 'bush'"),
        ("--degree", "1", "'1' came, expected whole numbers of 2 to 1024"),
        ("--degree", "2,x", "'2,x' came"),
    ],
)
def test_arguments_that_are_none(
    source: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, words: str
) -> None:
    with pytest.raises(SystemExit):
        run(source, "2", option, value)
    assert words in told(capsys)


def test_a_variant_is_no_original(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(source, "2", "--no-picture") == 0
    assert run(source.parent / "out/my-net-root-2.safetensors", "2") == 2
    assert "is a variant, root-2; expected the file of its original" in told(capsys)
