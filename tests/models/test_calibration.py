"""Ranges and accuracies beside the weights: measured, bound to the weights, and refused when they are not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from rootmodels.calibration import (
    CalibrationError,
    calibration_path,
    file_sha256,
    read_calibration,
)
from rootmodels.check_images import check_images
from rootmodels.processor import cpu_computes_bf16, int8_weight_bits
from rootmodels.weights_info import PRETRAINED_DIR, weights_path
from rootserve.server import calibrate
from rootserve.server.engines.base import EngineError, LoadSpec
from rootserve.server.engines.openvino_convolution import merge_groups
from rootserve.server.engines.registry import get_loader

NAME = "nin-root-16"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights with their calibration, in a folder of their own."""
    path = weights_path(NAME, tmp_path)
    shutil.copy(weights_path(NAME), path)
    shutil.copy(calibration_path(weights_path(NAME)), calibration_path(path))
    return path


def test_shipped_weights_are_as_accurate_in_int8_and_bf16() -> None:
    shipped = sorted(PRETRAINED_DIR.glob("*.safetensors"))
    assert shipped
    for path in shipped:
        accuracy = read_calibration(path).accuracy
        assert accuracy["int8"] > accuracy["fp32"] - 0.003, path
        assert accuracy["int8_7bit"] > accuracy["fp32"] - 0.003, path
        assert accuracy["bf16"] > accuracy["fp32"] - 0.002, path


def test_the_command_measures_what_is_shipped(weights: Path, sample_path: Path) -> None:
    calibration_path(weights).unlink()
    arguments = ("--data", str(sample_path), "--weights", str(weights.parent), "--images", "64")
    assert calibrate.main(arguments) == 0
    found, shipped = read_calibration(weights), read_calibration(weights_path(NAME))
    assert (found.range_images, found.test_images) == (64, 1000)
    assert found.ranges.keys() == shipped.ranges.keys()
    for name, (low, high) in found.ranges.items():
        assert low == pytest.approx(shipped.ranges[name][0], rel=0.5, abs=1e-6)
        assert high == pytest.approx(shipped.ranges[name][1], rel=0.5)
    np.testing.assert_allclose(found.check_logits, shipped.check_logits, atol=1e-3)
    assert found.accuracy["fp32"] == pytest.approx(0.89, abs=0.03)
    assert found.accuracy.keys() == set(
        ["fp32", "int8_7bit"]
        + ["bf16"] * cpu_computes_bf16()
        + ["int8"] * (int8_weight_bits() == 8)
    )
    for accuracy in found.accuracy.values():
        assert accuracy == pytest.approx(found.accuracy["fp32"], abs=0.006)  # six of 1,000


def test_the_command_says_what_it_cannot_read(
    tmp_path: Path, sample_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = ("--weights", str(tmp_path))
    assert calibrate.main(["--data", str(sample_path), *empty]) == 2
    assert "holds no weights" in capsys.readouterr().err
    assert calibrate.main(["--data", str(tmp_path / "gone")]) == 2
    assert "no such file or folder; expected parquet" in capsys.readouterr().err


def load_int8(path: Path | None) -> None:
    get_loader("openvino")(LoadSpec(NAME, path, "cpu", 1, "int8"))


def test_int8_needs_ranges(weights: Path) -> None:
    load_int8(weights)
    calibration_path(weights).unlink()
    with pytest.raises(
        EngineError, match=r"no nin-root-16\.calibration\.json .* rootserve\.server\.calibrate"
    ):
        load_int8(weights)
    with pytest.raises(EngineError, match="nin-root-16 has no trained weights"):
        load_int8(None)


def test_ranges_of_other_weights_are_refused(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-8] ^= 1  # a bit of one number
    weights.write_bytes(content)
    with pytest.raises(EngineError, match="measured with other weights"):
        load_int8(weights)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"ranges": {"conv1a": [1, 1]}}', "\x00"])
def test_a_damaged_calibration_is_refused(weights: Path, content: str) -> None:
    calibration_path(weights).write_text(content)
    with pytest.raises(CalibrationError, match=r"calibration\.json cannot be used"):
        read_calibration(weights)


def test_a_calibration_with_an_empty_range_is_refused(weights: Path) -> None:
    content = json.loads(calibration_path(weights).read_text())
    content["ranges"]["conv2a"] = [0.0, 0.0]
    calibration_path(weights).write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match="a range is empty"):
        read_calibration(weights)


def test_check_images_are_images() -> None:
    images = check_images(32)
    assert images.shape == (32, 3, 32, 32)
    assert images.std() > 40
    np.testing.assert_array_equal(check_images(224)[:, :, ::7, ::7], images)
    assert check_images(100, 3).shape == (3, 3, 100, 100)


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "left"),
    [(96, 192, 32, 16), (192, 192, 32, 16), (192, 192, 16, 16), (96, 192, 1, 1), (12, 6, 6, 3)],
)
def test_merged_groups_compute_the_same(inputs: int, outputs: int, groups: int, left: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(outputs, inputs // groups, 3, 3)).astype(np.float32)
    x = torch.from_numpy(rng.normal(size=(1, inputs, 5, 5)).astype(np.float32))
    merged, fewer = merge_groups(weight, groups)
    expected = functional.conv2d(x, torch.from_numpy(weight), groups=groups)
    found = functional.conv2d(x, torch.from_numpy(merged), groups=fewer)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert fewer == left


def test_slow_groups_are_merged() -> None:
    weight = np.ones((192, 12, 5, 5), np.float32)
    merged, fewer = merge_groups(weight, 8, range(9, 16))
    assert (merged.shape, fewer, merged.sum()) == ((192, 24, 5, 5), 4, weight.sum())


def test_depthwise_convolutions_stay() -> None:
    weight = np.ones((64, 1, 3, 3), np.float32)
    assert merge_groups(weight, 64) == (weight, 64)
