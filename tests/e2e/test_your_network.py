"""The commands of docs/your-network.md, in their order, with the module that stands there."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from rootmodels import cifar10_facts as cifar10
from rootmodels.cifar10 import read_cifar10
from rootmodels.model_file import read_model
from rootmodels.weights_info import weights_path
from tests.support.server_process import running_server

PAGE = (Path(__file__).parents[2] / "docs/your-network.md").read_text()
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
PROGRAMS = {
    "python": [sys.executable],
    "rootserve": [sys.executable, "-m", "rootserve.client"],
}


def blocks(language: str) -> list[str]:
    """Those of the page in this language, without their fences."""
    every = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [text for each, text in every if each == language]


@pytest.fixture
def place(tmp_path: Path, sample_path: Path) -> Path:
    """A folder with all that the page takes for granted."""
    (tmp_path / "my_network.py").write_text(blocks("python")[0])
    (tmp_path / "classes.txt").write_text("\n".join(cifar10.CLASSES))
    table = pq.read_table(sample_path).slice(0, 100)
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"data/{split}-00000-of-00001.parquet")
    images = read_cifar10(tmp_path / "data", "test").images
    Image.fromarray(np.ascontiguousarray(images[0].transpose(1, 2, 0))).save(tmp_path / "photo.png")
    return tmp_path


def run(place: Path, command: str, changes: Mapping[str, str], *more: str) -> str:
    words = [changes.get(word, word) for word in shlex.split(command)]
    done = subprocess.run(
        [*PROGRAMS[words[0]], *words[1:], *more],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ | {"PYTHONPATH": str(place)},
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def test_the_page_from_a_module_to_its_covariance(place: Path) -> None:
    namespace: dict[str, object] = {}
    exec(blocks("python")[0], namespace)
    make = namespace["network"]
    assert callable(make)
    torch.manual_seed(0)
    module = make().eval()
    save_file(module.state_dict(), place / "state.safetensors")
    data = read_cifar10(place / "data", "test")
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    with torch.inference_mode():
        expected = module((torch.from_numpy(data.images) / 255 - mean) / std).numpy()
    accuracy = float((expected.argmax(1) == data.labels).mean())

    commands = blocks("")[0].splitlines()
    changes = {"DIR": "data", "0.91": f"{accuracy}", "10": "1", "1000": "64"}
    start = next(n for n, line in enumerate(commands) if line.startswith("rootserve-server"))
    told = [run(place, command, changes) for command in commands[:start]]
    assert "logits differ from the module's by" in told[0]
    assert f"measured {accuracy:.4f}" in told[1]
    assert "int8_7bit" in told[2]
    assert (place / "weights/my-net.calibration.json").exists()

    table = run(place, blocks("console")[0].strip(), {})
    assert table == blocks("text")[0]

    suggest = next(block.strip() for block in blocks("console") if " suggest " in block)
    told = [run(place, suggest, {"DIR": "data"}, "--images", "64")]
    assert "weights/my-net-suggest-4.safetensors" in told[0]

    options = shlex.split(commands[start])[1:]
    assert options == ["--weights", "weights"]
    with running_server("--weights", str(place / "weights"), "--precision", "fp32") as server:
        np.testing.assert_allclose(
            server.infer("my-net", data.images[:32]), expected[:32], atol=1e-4
        )
        rooted = server.infer("my-net-root-4", data.images[:32])
        assert np.isfinite(rooted).all()
        assert np.abs(rooted - expected[:32]).max() > 1e-3
        suggested = server.infer("my-net-suggest-4", data.images[:32])
        # Fitted, it is nearer to the original than what is merely left of the weights.
        assert np.abs(suggested - expected[:32]).mean() < np.abs(rooted - expected[:32]).mean()
        asked = commands[start + 1 :]
        told = [run(place, command, changes, "--server", server.address) for command in asked]
    assert "my-net" in told[0]
    assert cifar10.CLASSES[int(expected[0].argmax())] in told[1]
    assert (place / "out/covariance.npz").exists()
    assert "both" in told[4]


def test_the_page_from_training_to_the_table(place: Path) -> None:
    first = blocks("")[0].splitlines()[0]
    begin = shlex.split(first)
    for option in ("--weights", "--accuracy"):
        place_of = begin.index(option)
        del begin[place_of : place_of + 2]
    run(place, shlex.join(begin), {})
    run(place, blocks("console")[0].strip(), {}, "--no-picture")

    commands = blocks("sh")[0].splitlines()
    changes = {"DIR": "data", "batch_size=256": "batch_size=50"}
    start = next(n for n, line in enumerate(commands) if line.startswith("rootserve-server"))
    told = [run(place, command, changes) for command in commands[:start]]
    assert "my-net: accuracy" in told[0]
    names = ("my-net", "my-net-root-4", "my-net-root-8")
    assert "all 3 files are as accurate as their metadata says" in told[2]
    models = [read_model(weights_path(name, place / "trained")) for name in names]
    assert [model.provenance["epochs"] for model in models] == [4, 2, 2]
    assert models[2].provenance["recipe"]["teacher"].startswith("my-net, 0.")

    options = shlex.split(commands[start])[1:]
    assert options == ["--weights", "shipped", "--weights", "trained"]
    options[-1] = str(place / "trained")
    served = ",".join((*names, "nin-root-16"))
    with running_server(*options, "--precision", "fp32", "--models", served) as server:
        images = read_cifar10(place / "data", "test").images[:8]
        assert server.infer("nin-root-16", images).shape == (8, 10)
        (asked,) = commands[start + 1 :]
        more = ("--rounds", "1", "--rows", "8", "--server", server.address)
        table = run(place, asked, changes, *more)
    for name, model in zip(names, models, strict=True):
        assert model.accuracy is not None
        (line,) = [line for line in table.splitlines() if line.split()[:1] == [name]]
        assert f"{model.accuracy:.2%}" in line
