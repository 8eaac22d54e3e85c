import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rootmodels.network import Network
from rootmodels.variants import get_variant
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import PRETRAINED_DIR, WeightsError, WeightsInfo, read_info

INFO = WeightsInfo("nin-root-16", 0.5, 100, 1, 0, "abc", {"peak_lr": 0.2})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", Network(get_variant("nin-root-16")), INFO)
    return tmp_path / "w.safetensors"


def test_weights_come_back_rounded_to_fp16(path: Path) -> None:
    torch.manual_seed(0)
    original = Network(get_variant("nin-root-16"))
    model, info = load_weights(path)
    assert info == read_info(path) == INFO
    assert not model.training
    for (key, value), loaded in zip(
        original.state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert loaded.dtype == value.dtype, key
        torch.testing.assert_close(loaded, value, rtol=1e-3, atol=1e-6)
    assert model.body.conv1b.conv.weight.is_contiguous(memory_format=torch.channels_last)


def change(path: Path, key: str, value: torch.Tensor | None) -> None:
    tensors = load_file(path)
    if value is None:
        del tensors[key]
    else:
        tensors[key] = value
    info = {"variant": "nin-root-16", "accuracy": 0.5, "test_images": 1, "epochs": 1, "seed": 0}
    metadata = {"rootserve": json.dumps({**info, "data_sha256": "", "recipe": {}})}
    save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "body.conv1a.conv.weight",
            None,
            "not those of nin-root-16; missing: body.conv1a.conv.weight$",
        ),
        ("more", torch.zeros(1), "not those of nin-root-16; unexpected: more$"),
        ("body.conv1a.conv.bias", torch.zeros(3), r"is \[3\], nin-root-16 has \[192\]"),
        ("body.conv1a.conv.bias", torch.full((192,), torch.nan), "not finite"),
    ],
)
def test_wrong_tensors_are_refused(
    path: Path, key: str, value: torch.Tensor | None, words: str
) -> None:
    change(path, key, value)
    with pytest.raises(WeightsError, match=words):
        load_weights(path)


def test_metadata_come_back_whole(path: Path) -> None:
    model, _ = load_weights(path)
    info = WeightsInfo(
        "nin-root-16",
        accuracy=0.75,
        test_images=100,
        epochs=8,
        seed=2,
        data_sha256="abc",
        recipe={"epochs": 2, "muon_lr": 0.04},
        hardware="a processor, 2 threads",
        seconds=61.5,
        seed_accuracies={"2": 0.75, "3": 0.5},
        continued_from={"epochs": 6, "seed": 0, "accuracy": 0.7, "recipe": {"peak_lr": 0.2}},
    )
    save_weights(path, model, info)
    assert read_info(path) == info


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(pickle.dumps({"never": "loaded"}))
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_weights(path)
    with pytest.raises(WeightsError, match="nowhere does not exist"):
        load_weights(tmp_path / "nowhere")


def test_a_file_of_others_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="no usable 'rootserve' metadata"):
        read_info(tmp_path / "x.safetensors")


@pytest.mark.parametrize("path", sorted(PRETRAINED_DIR.glob("*.safetensors")), ids=lambda p: p.stem)
def test_shipped_weights_load_and_say_where_they_come_from(path: Path) -> None:
    model, info = load_weights(path)
    assert info.variant == path.stem == model.variant.name
    assert info.test_images == 10_000
    assert 0.80 <= info.accuracy < 1.0
    assert info.epochs > 0
    assert len(info.data_sha256) == 64
    earlier = info.continued_from["epochs"] if info.continued_from else 0
    assert info.epochs == earlier + info.recipe["epochs"]
