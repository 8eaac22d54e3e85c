"""Versions of a model beside each other, changed from the command line: load, bad load, rollback, pins."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as oip

from rootmodels.weights_info import file_sha256, weights_path
from tests.support.server_process import ServerProcess, infer_request, plain_images, running_server

MODEL = "nin-root-16"
FAKE = ("--models", MODEL, "--device", "cpu", "--engine", "fake", "--model-control", "explicit")
CONFIG = '{"version_policy": {"specific": {"versions": [%d]}}}'


def put(folder: Path, version: int, *, same: bool = False) -> None:
    """Weights as a version: a file whose hash is its own, unless it is to be the ``same``."""
    path = folder / MODEL / str(version) / f"{MODEL}.safetensors"
    path.parent.mkdir(parents=True)
    shutil.copy(weights_path(MODEL), path)
    if not same:
        change(path, version)


def change(path: Path, seed: int) -> None:
    """Another value for the last number of the last tensor."""
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([seed, 0x3C]))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    shutil.copy(weights_path(MODEL), tmp_path)
    return tmp_path


@pytest.fixture
def server(weights: Path) -> Iterator[ServerProcess]:
    with running_server(*FAKE, "--weights", str(weights)) as started:
        yield started


def rootserve(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rootserve.client", *arguments, "--server", server.address]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def live(server: ServerProcess) -> tuple[str, int]:
    """Version and generation, as an answer tells them."""
    request = infer_request(MODEL, plain_images(1))
    answer = server.stub.ModelInfer(request, timeout=30)
    return answer.model_version, answer.parameters["generation"].int64_param


def weights_id(folder: Path, version: int | None = None) -> str:
    parent = folder if version is None else folder / MODEL / str(version)
    return file_sha256(weights_path(MODEL, parent))[:12]


def test_a_day_of_versions(server: ServerProcess, weights: Path) -> None:
    first = weights_id(weights)
    assert live(server) == ("1", 1)
    put(weights, 2)
    put(weights, 3)
    (weights / MODEL / "3" / f"{MODEL}.safetensors").write_bytes(b"no weights")

    bad = rootserve(server, "load-model", MODEL)
    assert bad.returncode == 3
    assert "FAILED_PRECONDITION" in bad.stderr
    assert "nothing has changed" in bad.stderr
    assert f"{MODEL}/3/{MODEL}.safetensors" in bad.stderr
    assert live(server) == ("1", 1)

    good = rootserve(server, "load-model", MODEL, "--version", "2")
    second = weights_id(weights, 2)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout == (
        f"{MODEL}  version 1, weights {first}, load 1 -> version 2, weights {second}, load 2\n"
    )
    assert live(server) == ("2", 2)

    back = rootserve(server, "rollback", MODEL)
    assert back.stdout.endswith(f"-> version 1, weights {first}, load 3\n")
    assert live(server) == ("1", 3)
    again = rootserve(server, "rollback", MODEL)
    assert again.returncode == 3
    assert "there is nothing before version 1" in again.stderr
    assert "at the next start it is the latest again" in server.log()

    gone = rootserve(server, "unload-model", MODEL)
    assert gone.stdout.endswith("-> not served\n")
    with pytest.raises(grpc.RpcError, match="known but not served"):
        live(server)


def test_rollbacks_go_back_one_by_one_and_find_the_folder_s_versions(weights: Path) -> None:
    put(weights, 2)
    put(weights, 4)
    with running_server(*FAKE, "--weights", str(weights)) as server:
        assert live(server) == ("4", 1)
        assert rootserve(server, "rollback", MODEL).returncode == 0
        assert live(server) == ("2", 2)
        assert rootserve(server, "load-model", MODEL).returncode == 0
        assert live(server) == ("4", 3)
        assert rootserve(server, "load-model", MODEL, "--version", "1").returncode == 0
        assert rootserve(server, "load-model", MODEL, "--version", "1").returncode == 0
        for expected in (("4", 6), ("2", 7), ("1", 8)):
            assert rootserve(server, "rollback", MODEL).returncode == 0
            assert live(server) == expected


def test_a_flat_file_that_was_written_over_cannot_be_rolled_back_to(
    server: ServerProcess, weights: Path
) -> None:
    change(weights_path(MODEL, weights), 7)
    assert rootserve(server, "load-model", MODEL).returncode == 0
    back = rootserve(server, "rollback", MODEL)
    assert back.returncode == 3
    assert "keep each version in a folder of its own" in back.stderr
    assert live(server) == ("1", 2)


def test_tritonclient_chooses_versions_and_sees_the_policy(
    server: ServerProcess, weights: Path
) -> None:
    put(weights, 2)
    put(weights, 3)
    with triton.InferenceServerClient(server.address) as client:
        client.load_model(MODEL, config=CONFIG % 2)
        assert client.get_model_metadata(MODEL).versions == ["2"]
        policy = client.get_model_config(MODEL).config.version_policy
        assert list(policy.specific.versions) == [2]
        (row,) = [one for one in client.get_model_repository_index().models if one.name == MODEL]
        assert row.version == "2"
        assert client.is_model_ready(MODEL, "2")
        assert not client.is_model_ready(MODEL, "1")
        client.load_model(MODEL)
        assert client.get_model_config(MODEL).config.version_policy.latest.num_versions == 1
        assert client.get_model_metadata(MODEL).versions == ["3"]
        with pytest.raises(triton.InferenceServerException, match="there are 1, 2, 3"):
            client.load_model(MODEL, config=CONFIG % 4)
        request = [triton.InferInput("images", [1, 3, 32, 32], "UINT8")]
        request[0].set_data_from_numpy(plain_images(1))
        with pytest.raises(triton.InferenceServerException, match="has no version '2'; it has"):
            client.infer(MODEL, request, model_version="2")


def test_a_pinned_version_is_served_at_the_start_and_by_plain_loads(weights: Path) -> None:
    put(weights, 2)
    put(weights, 3)
    pinned = ("--versions", f"{MODEL}=2", "--weights", str(weights))
    with running_server(*FAKE, *pinned) as server:
        assert live(server) == ("2", 1)
        server.stub.RepositoryModelLoad(
            oip.RepositoryModelLoadRequest(model_name=MODEL), timeout=30
        )
        assert live(server) == ("2", 2)
        assert "it is the latest again" not in server.log()
