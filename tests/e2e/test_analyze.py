"""`rootserve analyze` against a real server: its matrices are those of all samples held at once."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rootmodels.cifar10_facts import CLASSES
from rootmodels.weights import load_weights
from rootserve.client.dataset import read_dataset
from tests.support.server_process import ServerProcess, plain_images, running_server

MODEL = "nin-root-16"
PAIRS = ("conv1c-conv2a", "conv2c-conv3a")
WEIGHTS = Path(__file__).parents[2] / "rootmodels" / "pretrained" / f"{MODEL}.safetensors"


@pytest.fixture(scope="module")
def server(sample_path: Path) -> Iterator[ServerProcess]:
    with running_server(
        "--device", "cpu", "--models", MODEL, "--datasets", f"sample={sample_path}"
    ) as started:
        yield started


def start(server: ServerProcess, command: str, *arguments: object) -> subprocess.Popen[str]:
    line = [
        sys.executable,
        "-m",
        "rootserve.client",
        "analyze",
        command,
        "--server",
        server.address,
    ]
    return subprocess.Popen(
        [*line, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def analyze(server: ServerProcess, command: str, *arguments: object) -> tuple[int, str, str]:
    process = start(server, command, *arguments)
    out, err = process.communicate(timeout=110)
    return process.returncode, out, err


def responses(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """All samples [channels, samples] of each convolution after its ReLU, up-sampled to 32x32."""
    model = load_weights(WEIGHTS)[0].fold()
    taken = {}

    def keep(name: str, output: torch.Tensor) -> None:
        times = 32 // output.shape[2]
        large = output.relu().double().repeat_interleave(times, 2).repeat_interleave(times, 3)
        taken[name] = large.permute(1, 0, 2, 3).reshape(large.shape[1], -1).numpy()

    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            name = path.split(".")[1]
            module.register_forward_hook(lambda _m, _i, output, name=name: keep(name, output))
    with torch.no_grad():
        model(torch.from_numpy(images))
    return taken


def whitening(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(np.cov(samples))
    kept = values > 1e-6 * values.max()
    result: NDArray[np.float64] = (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T
    return result


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def test_the_matrices_are_those_of_all_samples(
    server: ServerProcess, sample_path: Path, tmp_path: Path
) -> None:
    code, out, err = analyze(
        server, "covariance", "-m", MODEL, "--pairs", ",".join(PAIRS), "--data", sample_path,
        "--images", 40, "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    assert "conv1c-conv2a" in out
    samples = responses(read_dataset(sample_path, 40).images)
    with np.load(tmp_path / "covariance.npz") as arrays:
        for pair, side in zip(PAIRS, (32, 16), strict=True):
            first, second = (samples[name] for name in pair.split("-"))
            covariance = np.cov(first, second)[: len(first), len(first) :]
            # Up-sampled to 32x32 alike, both layers repeat each sample: N - 1 is another one.
            count = 40 * side**2
            covariance *= (first.shape[1] - 1) / first.shape[1] * count / (count - 1)
            assert arrays[f"samples/{pair}"] == count
            assert distance(arrays[f"covariance/{pair}"], covariance) < 1e-4
            white = whitening(first) @ covariance @ whitening(second)
            assert distance(arrays[f"whitened/{pair}"], white) < 1e-3
        for name in ("conv1c", "conv2a", "conv2c", "conv3a"):
            assert distance(arrays[f"mean/{name}"], samples[name].mean(axis=1)) < 1e-5
            assert distance(arrays[f"correlation/{name}"], np.corrcoef(samples[name])) < 1e-4
    scores = json.loads((tmp_path / "scores.json").read_text())
    for pair, groups in zip(PAIRS, ("16", "8"), strict=True):
        assert scores[pair][groups]["ratio"] > 1.5
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "conv1c-conv2a.png", "conv2c-conv3a.png", "whitened.png", "correlation.png",
    }  # fmt: skip


def test_the_channels_of_the_last_layer_are_the_classes(
    server: ServerProcess, sample_path: Path, tmp_path: Path
) -> None:
    code, _, err = analyze(
        server, "correlation", "-m", MODEL, "--layers", "conv3b,conv3c", "--data", sample_path,
        "--images", 20, "--no-pictures", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    with np.load(tmp_path / "correlation.npz") as arrays:
        assert list(arrays["labels/conv3c"]) == list(CLASSES)
        assert "labels/conv3b" not in arrays


def test_parts_on_their_own_and_merged_are_the_whole(
    server: ServerProcess, sample_path: Path, tmp_path: Path
) -> None:
    common = ("-m", MODEL, "--pairs", PAIRS[0], "--no-pictures")
    for folder, skip, images in (("0", 0, 30), ("1", 30, 70), ("whole", 0, 100)):
        code, _, err = analyze(
            server, "covariance", *common, "--data", sample_path, "--skip", skip,
            "--images", images, "--sums", "--out", tmp_path / folder,
        )  # fmt: skip
        assert code == 0, err
    parts = (tmp_path / "1", tmp_path / "0")
    code, out, err = analyze(server, "merge", *parts, "--no-pictures", "--out", tmp_path / "merged")
    assert code == 0, err
    assert f"{MODEL}, 100 images" in out
    with (
        np.load(tmp_path / "whole" / "covariance.npz") as whole,
        np.load(tmp_path / "merged" / "covariance.npz") as merged,
    ):
        assert set(whole) == set(merged)
        for name in whole:
            if name.startswith(("covariance/", "correlation/", "mean/")):
                assert distance(merged[name], whole[name]) < 1e-6


def test_images_of_the_server_are_those_one_could_send(
    server: ServerProcess, sample_path: Path, tmp_path: Path
) -> None:
    for source in (("--dataset", "sample"), ("--data", sample_path)):
        code, _, err = analyze(
            server, "correlation", "-m", MODEL, "--layers", "conv3b", *source, "--images", 20,
            "--skip", 7, "--no-pictures", "--out", tmp_path / source[0],
        )  # fmt: skip
        assert code == 0, err
    with (
        np.load(tmp_path / "--dataset" / "correlation.npz") as here,
        np.load(tmp_path / "--data" / "correlation.npz") as there,
    ):
        assert distance(here["correlation/conv3b"], there["correlation/conv3b"]) < 1e-6


def test_before_the_relu_responses_are_negative_too(
    server: ServerProcess, sample_path: Path, tmp_path: Path
) -> None:
    code, _, err = analyze(
        server, "correlation", "-m", MODEL, "--layers", "conv2a", "--data", sample_path,
        "--images", 20, "--before-relu", "--no-pictures", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    with np.load(tmp_path / "correlation.npz") as arrays:
        assert arrays["mean/conv2a"].min() < 0


def test_ctrl_c_cancels_and_the_server_goes_on(
    server: ServerProcess, sample_path: Path, tmp_path: Path
) -> None:
    process = start(
        server, "covariance", "-m", MODEL, "--data", sample_path, "--out", tmp_path / "out"
    )
    while not (tmp_path / "out").exists():
        assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    assert server.infer(MODEL, plain_images(1)).shape == (1, 10)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-m", "nope"), ["NOT_FOUND", "nope", MODEL]),
        (("-m", MODEL, "--pairs", "conv1a-conv9"), ["NOT_FOUND", "conv9", "conv1a, conv1b"]),
        (("-m", MODEL, "--tolerance", "1"), ["INVALID_ARGUMENT", "tolerance 1"]),
        (("-m", "nin-col-2"), ["nin-col-2"]),
    ],
)
def test_refusals_tell_what_there_is(
    server: ServerProcess,
    sample_path: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: list[str],
) -> None:
    code, out, err = analyze(
        server, "covariance", *arguments, "--data", sample_path, "--out", tmp_path
    )
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_a_data_set_the_server_does_not_have(server: ServerProcess, tmp_path: Path) -> None:
    code, _, err = analyze(
        server, "covariance", "-m", MODEL, "--dataset", "imagenet", "--out", tmp_path
    )
    assert code == 3
    assert "NOT_FOUND" in err
    assert "imagenet" in err
    assert "sample" in err
