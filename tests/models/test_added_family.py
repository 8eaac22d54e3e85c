"""A family that a package adds, examples/vgg11: counted, trained and computed like those of this package."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.cost import network_cost
from rootmodels.import_weights import main as import_main
from rootmodels.network import Network
from rootmodels.parameters import load_network
from rootmodels.train import main as train_main
from rootmodels.train import short_of_paper
from rootmodels.train_dense import dense_form
from rootmodels.train_init import start_from
from rootmodels.variants import get_variant
from rootmodels.verify import main as verify_main
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import WeightsError, WeightsInfo, read_info, weights_path
from tests.support.added_family import install, install_example, on_the_path

NAMES = ("vgg11-orig", "vgg11-root-2", "vgg11-root-4", "vgg11-root-8", "vgg11-root-16")

ROUNDING_DOWN = """
from dataclasses import replace
from rootmodels.family import Variant
from vgg11 import VGG11, layers

FLOOR = replace(
    VGG11,
    name="floor",
    variants=(Variant("floor", "orig", 1, (1, 1, 1, 1, 1)),),
    layers=lambda *given: (replace(layer, ceil=False) for layer in layers(*given)),
)
"""


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("site")
    install_example(folder)
    with on_the_path(folder):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, sample_path: Path) -> Path:
    """48 images, training and test set in one."""
    path = tmp_path_factory.mktemp("data") / "tiny.parquet"
    pq.write_table(pq.read_table(sample_path).slice(0, 48), path)
    return path


@pytest.fixture(scope="module")
def tiny(data: Path) -> LabelledImages:
    return read_cifar10(data, "train")


@pytest.mark.parametrize("name", NAMES)
def test_what_it_costs_is_what_the_formula_says(name: str) -> None:
    """Written out from the paper's configuration A: (pixels, inputs, filters) of each 3x3 convolution."""
    degree = int(name.rpartition("-")[2]) if "root" in name else 1
    groups = {8: degree, 4: max(1, degree // 2), 2: max(1, degree // 4)}
    shapes = [(32, 3, 64), (16, 64, 128), (8, 128, 256), (8, 256, 256)]
    shapes += [(4, 256, 512), (4, 512, 512), (2, 512, 512), (2, 512, 512)]
    params = 512 * 512 + 512 + 512 * 10 + 10
    macs = 512 * 512 + 512 * 10
    for side, inputs, filters in shapes:
        g = groups.get(side, 1)
        weights = 9 * inputs * filters // g + (filters * filters if g > 1 else 0)
        params += weights
        macs += weights * side * side
    cost = network_cost(get_variant(name))
    assert (cost.params, cost.macs, cost.flops_paper) == (params, macs, macs + 512 + 10)


def test_it_is_trained_by_the_command_and_its_weights_are_read_back(
    data: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "rootmodels.train", "vgg11-root-16", "--data", data, "--epochs", "3", "--set",
        "batch_size=48", "vector_lr=0.02", "--precision", "fp32", "--out", tmp_path / "out",
        "--work", tmp_path / "work",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    path = weights_path("vgg11-root-16", tmp_path / "out")
    info = read_info(path)
    assert (info.variant, info.epochs, info.test_images) == ("vgg11-root-16", 3, 48)
    (log,) = (tmp_path / "work").glob("*.jsonl")
    losses = [json.loads(line)["loss"] for line in log.read_text().splitlines()]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    assert verify_main(["vgg11-root-16", "--data", str(data), "--weights", str(path.parent)]) == 0
    # What engines start from, against the training form.
    model, _ = load_weights(path)
    folded = Network.from_folded(load_network(path, model.variant))
    images = torch.from_numpy(read_cifar10(data, "test").images)
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), model(images), atol=1e-4, rtol=1e-4)


def test_groups_are_computed_densely_where_no_variant_is_without_them(tiny: LabelledImages) -> None:
    """Orig lacks the layers that mix: the variants that have them stand for one another."""
    images = torch.from_numpy(tiny.images[:4])
    names = ("vgg11-root-8", "vgg11-root-16")
    device = torch.device("cpu")
    (form,) = {dense_form(get_variant(name), None, None, device, compiled=False) for name in names}
    for name in names:
        network = Network(get_variant(name)).train()
        with torch.no_grad():
            torch.testing.assert_close(form(network, images), network(images), rtol=1e-3, atol=1e-3)


def test_weights_start_others_where_they_fit(tmp_path: Path) -> None:
    path = weights_path("vgg11-root-8", tmp_path)
    source = Network(get_variant("vgg11-root-8"))
    save_weights(path, source, WeightsInfo("vgg11-root-8", None, 0, 0, 0, "", {}))
    start_from(path, target := Network(get_variant("vgg11-root-16")))
    torch.testing.assert_close(
        target.get_parameter("mix3_1.conv.weight"),
        source.get_parameter("mix3_1.conv.weight").half().float(),
    )
    with pytest.raises(
        WeightsError, match=r"conv3_1.conv has 8 groups in vgg11-root-8, expected a divisor"
    ):
        start_from(path, Network(get_variant("vgg11-root-4")))


def test_weights_without_a_layer_do_not_start_what_has_it(tmp_path: Path) -> None:
    path = weights_path("vgg11-orig", tmp_path)
    info = WeightsInfo("vgg11-orig", None, 0, 0, 0, "", {})
    save_weights(path, Network(get_variant("vgg11-orig")), info)
    with pytest.raises(WeightsError, match=r"does not fit vgg11-root-8: [\s\S]*mix3_1"):
        start_from(path, Network(get_variant("vgg11-root-8")))


def test_a_recipe_with_images_that_are_too_small_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Poolings that round down have no such maps for the 24 pixels that training begins with."""
    install(tmp_path, "their-nets", {"extra": "their_nets:FLOOR"}, ROUNDING_DOWN)
    folders = ["--out", str(tmp_path), "--work", str(tmp_path), "--set", "batch_size=16"]
    with on_the_path(tmp_path):
        assert train_main(["floor-orig", "--data", str(data), *folders]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: the recipe has images of 24 pixels: floor-orig for images of 24"
    )
    assert error.endswith(
        "layer 'pool4' has size 2, expected 1; expected another small_size, or small_share=0\n"
    )


def test_the_paper_has_no_accuracy_for_it_to_miss(tmp_path: Path) -> None:
    assert not [name for name in short_of_paper(tmp_path) if name in NAMES]


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (train_main, ["nin-orig", "--data", "x"]),
        (import_main, ["x", "--variant", "nin-orig"]),
        (verify_main, ["nin-orig", "--data", "x"]),
    ],
)
def test_commands_say_which_package_is_at_fault(
    main: Callable[[list[str]], int],
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(tmp_path, "their-nets", {"extra": "their_nets:family"}, "family = 3")
    with on_the_path(tmp_path):
        assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: their-nets 0.1.0, entry point 'extra = ")
