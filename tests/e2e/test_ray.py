"""A Ray cluster of three nodes on this machine: what is computed there, whoever dies meanwhile."""

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from rootmodels import train, verify
from rootmodels.analysis.derived import Kind
from rootmodels.analysis.sums import Sums
from rootmodels.distributed.analysis import Analysis, Progress, Request
from rootmodels.distributed.tasks import Here
from rootmodels.weights_info import weights_path
from rootserve.client import cli
from tests.support.ray_nodes import Nodes, ray_nodes

MODEL = "nin-root-16"
ROWS, FILES = 16, 7
_BIN = Path(sys.executable).parent
_LIMIT_S = 150


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, sample_path: Path) -> Path:
    """A folder of parquet files."""
    folder = tmp_path_factory.mktemp("images")
    table = pq.read_table(sample_path)
    for number in range(FILES):
        pq.write_table(table.slice(number * ROWS, ROWS), folder / f"{number}.parquet")
    return folder


@pytest.fixture(scope="module")
def expected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Sums:
    """What one process makes of them."""
    request = Request(MODEL, str(images), pairs=(("conv1c", "conv2a"),))
    analysis = Analysis(request, tmp_path_factory.mktemp("sums"), resume=False)
    return analysis.run(Here(), _Silent(), {Kind.SCATTER}).sums


class _Silent:
    def planned(self, plan: object) -> None:
        pass

    def progress(self, progress: Progress) -> None:
        pass


def analyse(nodes: Nodes, data: str, out: Path, *more: str) -> list[str]:
    command = [str(_BIN / "rootserve"), "analyze", "covariance", "--model", MODEL, "--data", data]
    command += ["--ray", nodes.address, "--out", str(out), "--pairs", "conv1c-conv2a"]
    return [*command, "--sums", "--no-pictures", *more]


def start(command: list[str], nodes: Nodes) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=nodes.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )


def wait_for_partial_sums(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while len(list((folder / "partial").glob("*.sums"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_same_sums(folder: Path, expected: Sums) -> None:
    """To the bit: the same shards, summed by a thread each and merged in the same tree."""
    with np.load(folder / "sums.npz") as found:
        for name, moments in expected.layers.items():
            assert np.array_equal(found[f"scatter/{name}/"], moments.scatter)
            assert np.array_equal(found[f"mean/{name}/"][0], moments.mean_rows)
        for (first, second), moments in expected.pairs.items():
            assert np.array_equal(found[f"cross_scatter/{first}/{second}"], moments.scatter)


def test_a_node_that_dies_and_files_that_are_broken_change_nothing_of_the_rest(
    nodes: Nodes, images: Path, expected: Sums, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in images.iterdir():
        (data / file.name).symlink_to(file)
    (data / "broken.parquet").write_bytes(b"PAR1 but no more")
    (data / "gone.parquet").symlink_to(tmp_path / "nowhere")
    out = tmp_path / "out"
    process = start(analyse(nodes, str(data), out, "--json"), nodes)
    wait_for_partial_sums(out, 1, process)
    killed = nodes.ask("kill")
    output, errors = process.communicate(timeout=_LIMIT_S)
    assert killed
    assert process.returncode == 1, errors
    assert json.loads(output)["images"] == ROWS * FILES
    assert_same_sums(out, expected)
    assert "left out" in errors
    assert "broken.parquet: cannot be read" in errors
    assert "gone.parquet" in errors
    left_out = json.loads((out / "left-out.json").read_text())
    assert len(left_out) == 2
    assert nodes.ask("nodes") == "2"


def test_a_driver_that_is_killed_is_resumed(
    nodes: Nodes, images: Path, expected: Sums, tmp_path: Path
) -> None:
    command = analyse(nodes, f"{images}/*.parquet", tmp_path)
    process = start(command, nodes)
    wait_for_partial_sums(tmp_path, 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "partial").glob("*.sums")}
    again = run(command, nodes.environment)
    assert again.returncode == 2
    assert "expected --resume" in again.stderr
    process = start([*command, "--resume"], nodes)
    wait_for_partial_sums(tmp_path, len(kept) + 1, process)
    assert all(file.stat().st_mtime_ns == then for file, then in kept.items())
    _, errors = process.communicate(timeout=_LIMIT_S)
    assert process.returncode == 0, errors
    assert_same_sums(tmp_path, expected)
    assert not (tmp_path / "partial").exists()


def test_a_node_with_another_version_is_refused(nodes: Nodes, images: Path, tmp_path: Path) -> None:
    about = tmp_path / "rootserve-9.9.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: rootserve\nVersion: 9.9.9\n")
    nodes.ask(f"add {tmp_path}")
    try:
        refused = run(analyse(nodes, str(images), tmp_path / "out"), nodes.environment)
    finally:
        nodes.ask("remove")
    assert refused.returncode == 2
    # Whatever takes more than five seconds says what it does.
    said = [line for line in refused.stderr.splitlines() if "waiting for its turn" not in line]
    assert len(said) == 1
    assert "has rootserve 9.9.9, the machine that asks has 0.1.0" in said[0]


def test_trainings_end_with_the_same_weights_wherever_they_are_continued(
    nodes: Nodes, sample_path: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    table = pq.read_table(sample_path)
    pq.write_table(table.slice(0, 64), data / "train-0.parquet")
    pq.write_table(table.slice(64, 16), data / "test-0.parquet")
    names = ["nin-root-16", "nin-root-8"]
    options = [*names, "--data", str(data), "--epochs", "5", "--set", "batch_size=16"]
    options += ["--precision", "fp32", "--threads", "1", "--checkpoint-s", "0"]
    command = [sys.executable, "-m", "rootmodels.train", *options]

    def folders(name: str) -> list[str]:
        return ["--work", str(tmp_path / name / "work"), "--out", str(tmp_path / name / "out")]

    process = start([*command, *folders("cluster"), "--ray", nodes.address], nodes)
    deadline = time.monotonic() + _LIMIT_S
    while len(list((tmp_path / "cluster" / "work").glob("*.pt"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert nodes.ask("kill")
    output, errors = process.communicate(timeout=_LIMIT_S)
    assert process.returncode == 0, errors
    assert "a node died" in output
    threads = torch.get_num_threads()
    try:
        assert train.main([*options, *folders("alone")]) == 0
    finally:
        torch.set_num_threads(threads)
    for name in names:
        found, wanted = (
            load_file(weights_path(name, tmp_path / where / "out"))
            for where in ("cluster", "alone")
        )
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[key], wanted[key]) for key in wanted)
    assert not list((tmp_path / "cluster" / "work").glob("*.pt*"))


def test_weights_are_verified_there(nodes: Nodes, sample_path: Path, tmp_path: Path) -> None:
    data = tmp_path / "test-0.parquet"
    pq.write_table(pq.read_table(sample_path).slice(0, 40), data)
    command = [sys.executable, "-m", "rootmodels", "verify", "nin-root-16", "nin-root-8"]
    result = run([*command, "--data", str(data), "--ray", "auto"], nodes.environment)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["nin-root-16", "nin-root-8"]
    assert "recorded" in lines[0]


Told = Callable[[list[str]], tuple[object, str]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """The exit code of `rootserve` with some options, and what it says on standard error."""

    def run_here(options: list[str]) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["rootserve", *options])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().err

    return run_here


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ray", "auto"], "expected --data FOLDER-OR-PATTERN"),
        (["--ray", "auto", "--data", "x", "--dataset", "y"], "neither --dataset"),
        (["--ray", "auto", "--data", "x", "--images", "3"], "nor --skip"),
        (["--ray", "auto", "--data", "x", "--device", "tpu"], "expected auto, cpu or cuda"),
        (["--data", "x", "--resume"], "expected them with --ray alone"),
        (["--ray", "auto", "--data", "x*y"], "x*y: no such images"),
    ],
)
def test_what_cannot_be_done_there_is_refused_before(
    options: list[str], words: str, tmp_path: Path, told: Told
) -> None:
    command = ["analyze", "covariance", "--model", MODEL, "--out", str(tmp_path)]
    code, errors = told([*command, *options])
    assert code == 2
    assert words in errors
    assert errors.count("\n") == 1


def test_without_ray_its_extra_is_named(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    command = ["analyze", "covariance", "--model", MODEL, "--out", str(tmp_path)]
    code, errors = told([*command, "--ray", "auto", "--data", "x"])
    assert code == 2
    assert errors.endswith("expected its extra, as in pip install 'rootserve[ray]'\n")


def test_an_address_without_a_cluster_is_told_by_every_command(
    sample_path: Path, tmp_path: Path, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    words = f"{address}: Connection refused; expected a Ray cluster there\n"
    images = ["--data", str(sample_path), "--ray", address]
    out = ["--out", str(tmp_path / "out")]
    command = ["analyze", "covariance", "--model", MODEL, *out, *images]
    assert told(command) == (3, f"rootserve: {words}")
    assert verify.main([MODEL, *images]) == 2
    assert capsys.readouterr().err == f"error: {words}"
    assert train.main([MODEL, "--work", str(tmp_path / "work"), *out, *images]) == 2
    assert capsys.readouterr().err == f"error: {words}"
