"""Filter groups of one's own choice, from the shipped weights: ``rootmodels root FILE --groups``."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rootmodels import derive_roots
from rootmodels.check_images import check_images
from rootmodels.layers import network_layers
from rootmodels.model_file import read_model
from rootmodels.roots import total_cost
from rootmodels.variants import get_variant
from rootmodels.weights_info import PRETRAINED_DIR, weights_path
from rootserve.server.engines import openvino_cpu, torch_eager
from rootserve.server.engines.base import LoadSpec

ORIGINAL = weights_path("nin-orig", PRETRAINED_DIR)


def run(out: Path, *arguments: str) -> int:
    return derive_roots.main([str(ORIGINAL), "--out", str(out), "--no-picture", *arguments])


def groups_in(path: Path) -> dict[str, int]:
    return {layer.name: layer.groups for layer in read_model(path).layers if layer.groups > 1}


def test_the_paper_variant_by_its_groups(tmp_path: Path) -> None:
    assert run(tmp_path, "--groups", "conv2a=8,conv3a=4", "--name", "mine") == 0
    model = read_model(tmp_path / "mine.safetensors")
    assert (model.family, model.topology, model.degree) == ("nin", "own", 8)
    assert total_cost(model.layers) == total_cost(network_layers(get_variant("nin-root-8")))
    kept, whole = load_file(tmp_path / "mine.safetensors"), load_file(ORIGINAL)
    np.testing.assert_array_equal(
        kept["graph.conv2a.weight"][:24], whole["body.conv2a.conv.weight"][:24, :12]
    )
    np.testing.assert_array_equal(
        kept["graph.conv1a-norm.running_var"], whole["body.conv1a.norm.running_var"]
    )


def test_its_own_name_is_what_tables_call_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--groups", "1,8", "--name", "late") == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0].split() == ["layer", "kernel", "channels", "late", "why", "not"]
    assert "\nlate " in told
    assert "own-8" not in told


def test_groups_stage_by_stage(tmp_path: Path) -> None:
    assert run(tmp_path, "--groups", "1,8") == 0
    assert groups_in(tmp_path / "nin-orig-own-8.safetensors") == {"conv3a": 8}


def test_the_last_pattern_that_fits_counts(tmp_path: Path) -> None:
    assert run(tmp_path, "--groups", "conv*a=3,conv2*=2", "--name", "mine") == 0
    expected = {"conv1a": 3, "conv2a": 2, "conv2b": 2, "conv2c": 2, "conv3a": 3}
    assert groups_in(tmp_path / "mine.safetensors") == expected


def test_groups_that_nothing_mixes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--groups", "conv2c=2,conv3a=2", "--name", "mine") == 0
    assert "note: conv2c: no 1x1 mixes its groups before conv3a" in capsys.readouterr().err


def test_both_engines_compute_it_alike(tmp_path: Path) -> None:
    assert run(tmp_path, "--groups", "conv3a=2", "--name", "mine") == 0
    spec = LoadSpec("mine", tmp_path / "mine.safetensors", "cpu", threads=1)
    images = check_images(32, 8)
    expected = torch_eager.load(spec).run(images)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(openvino_cpu.load(spec).run(images), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--groups", "conv9=2"), "no convolution's name is like 'conv9'; there are: conv1a,"),
        (("--groups", "conv1a=2"), "conv1a: 3 channels do not divide into 2 groups"),
        (("--groups", "conv2a=1"), "nothing is in groups"),
        (("--groups", "1,2,4"), "groups of 3 stages came; there are 2: 1: conv2a; 2: conv3a"),
        (("--groups", "conv2a=2", "--name", "nin-root-2"), "is the name of a variant that comes"),
        (("--groups", "conv2a=2", "--name", "../x"), "'../x' is no name of a model"),
    ],
)
def test_refusals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert run(tmp_path, *arguments) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--groups", "conv2a"), "'conv2a' came, expected NAME=GROUPS"),
        (("--groups", "conv2a=0"), "'conv2a=0' came, expected NAME=GROUPS"),
        (("--groups", "conv2a=2,4"), "'conv2a=2,4' came, expected NAME=GROUPS"),
        (("--groups", "=2"), "'=2' came, expected NAME=GROUPS"),
        (("--groups", "conv2a=2,conv2a=4"), "conv2a comes twice"),
        ((), "expected --topology with --degree, or --groups"),
        (("--topology", "root"), "expected --topology with --degree, or --groups"),
        (
            ("--topology", "root", "--degree", "2", "--groups", "1,2"),
            "expected --topology with --degree, or --groups",
        ),
        (("--topology", "root", "--degree", "2", "--name", "x"), "--name is for the one network"),
        (("--groups", "1,2", "--layers", "conv2a"), "--layers is for --topology"),
    ],
)
def test_arguments_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, *arguments)
    assert words in capsys.readouterr().err
