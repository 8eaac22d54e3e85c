"""ResNet-50 weights of somebody else, from their file to the answers of `rootserve`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.support.plain_resnet50 import reference_logits, state_dict
from tests.support.server_process import running_server

ROOT = Path(__file__).parents[2]
NAME = "resnet50-v1.5"
CLASSES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]


def run(*arguments: object) -> str:
    command = [sys.executable, "-m", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(state_dict(), tmp_path / "theirs.safetensors")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    folder = tmp_path / "weights"
    run(
        "rootmodels", "import", tmp_path / "theirs.safetensors", "--variant", NAME, "--classes",
        tmp_path / "classes.txt", "--accuracy", 0.75, "--image-size", 64, "--out", folder,
    )  # fmt: skip
    return folder


def test_weights_of_others_are_served_with_their_classes(weights: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8)
    state = {key: torch.from_numpy(value) for key, value in state_dict().items()}
    with torch.inference_mode():
        expected = reference_logits(
            state, torch.from_numpy(images).float(), (1, 1, 1, 1), stride_on_3x3=True
        ).numpy()
    with running_server("--device", "cpu", "--weights", str(weights)) as server:
        served = [m for m in json.loads(run("client", "models", "--json", "--server", server.address))
                  if m["state"] == "ready"]  # fmt: skip
        (model,) = served
        assert (model["name"], model["trained"], model["accuracy"]) == (NAME, True, 0.75)
        assert (model["image_size"], model["classes"]) == (64, CLASSES)
        assert model["params"] == 25_503_912 - 993 * 2049
        np.testing.assert_allclose(server.infer(NAME, images), expected, atol=1e-4, rtol=1e-4)
        picture = ROOT / "examples" / "images" / "cat.png"
        told = run("client", "infer", picture, "-m", NAME, "--server", server.address)
        assert sum(name in told for name in CLASSES) == 5
        with pytest.raises(Exception, match=r"expected \[rows, 3, 64, 64\]"):
            server.infer(NAME, np.zeros((1, 3, 32, 32), np.uint8))
