"""System shared memory with unmodified tritonclient: inputs, outputs, and regions that have changed."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, shared_memory

from tests.support.server_process import ServerProcess, plain_images, running_server

MODEL = "nin-root-16"
ROWS = 2
PIXELS = 3 * 32 * 32
LOGITS = 10 * 4


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    arguments = ("--engine", "fake", "--models", MODEL, "--shared-memory", "system")
    with running_server(*arguments) as made:
        yield made


@pytest.fixture
def client(server: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as made:
        yield made
        made.unregister_system_shared_memory()


@pytest.fixture
def key(client: triton.InferenceServerClient) -> Iterator[str]:
    """A region ``data`` with two rows of images, and room for their logits behind them."""
    name = f"rootserve-test-{secrets.token_hex(8)}"
    size = ROWS * (PIXELS + LOGITS)
    handle = shared_memory.create_shared_memory_region("data", name, size)
    images = np.stack([plain_images(1, value)[0] for value in (3, 9)])
    shared_memory.set_shared_memory_region(handle, [images])
    client.register_system_shared_memory("data", name, size)
    yield name
    shared_memory.destroy_shared_memory_region(handle)


def images(rows: int = ROWS, size: int = ROWS * PIXELS, offset: int = 0) -> triton.InferInput:
    made = triton.InferInput("images", [rows, 3, 32, 32], "UINT8")
    made.set_shared_memory("data", size, offset)
    return made


def output(size: int = ROWS * LOGITS, offset: int = ROWS * PIXELS) -> triton.InferRequestedOutput:
    made = triton.InferRequestedOutput("logits")
    made.set_shared_memory("data", size, offset)
    return made


def test_images_are_read_and_logits_written(client: triton.InferenceServerClient, key: str) -> None:
    answer = client.infer(MODEL, [images()], outputs=[output()])
    (described,) = answer.get_response().outputs
    assert (described.datatype, list(described.shape)) == ("FP32", [ROWS, 10])
    assert described.parameters["shared_memory_region"].string_param == "data"
    assert described.parameters["shared_memory_byte_size"].int64_param == ROWS * LOGITS
    assert list(answer.get_response().raw_output_contents) == [b""]
    written = np.frombuffer(Path("/dev/shm", key).read_bytes()[ROWS * PIXELS :], np.float32)
    assert written.reshape(ROWS, 10)[:, 0].tolist() == [3, 9]


def test_one_side_alone_and_a_part_of_the_region(
    client: triton.InferenceServerClient, key: str
) -> None:
    answer = client.infer(MODEL, [images(1, PIXELS, PIXELS)])
    assert answer.as_numpy("logits")[0][0] == 9
    raw = triton.InferInput("images", [1, 3, 32, 32], "UINT8")
    raw.set_data_from_numpy(plain_images(1, 7))
    outputs = [triton.InferRequestedOutput("probabilities"), output(LOGITS)]
    answer = client.infer(MODEL, [raw], outputs=outputs)
    assert answer.as_numpy("probabilities").sum() == pytest.approx(1)
    written = np.frombuffer(Path("/dev/shm", key).read_bytes(), np.float32, 10, ROWS * PIXELS)
    assert written[0] == 7


def test_pictures_are_read_from_shared_memory(
    client: triton.InferenceServerClient, cat_path: Path
) -> None:
    picture = cat_path.read_bytes()
    content = len(picture).to_bytes(4, "little") + picture
    name = f"rootserve-test-{secrets.token_hex(8)}"
    Path("/dev/shm", name).write_bytes(content)
    try:
        client.register_system_shared_memory("data", name, len(content))
        encoded = triton.InferInput("encoded", [1], "BYTES")
        encoded.set_shared_memory("data", len(content))
        shared = client.infer(MODEL, [encoded]).as_numpy("logits")
        encoded = triton.InferInput("encoded", [1], "BYTES")
        encoded.set_data_from_numpy(np.array([picture], np.object_))
        assert shared.tolist() == client.infer(MODEL, [encoded]).as_numpy("logits").tolist()
    finally:
        Path("/dev/shm", name).unlink()


def test_what_is_registered_is_told_and_forgotten(
    client: triton.InferenceServerClient, key: str
) -> None:
    regions = client.get_system_shared_memory_status().regions
    assert (regions["data"].key, regions["data"].byte_size) == (key, ROWS * (PIXELS + LOGITS))
    with pytest.raises(InferenceServerException, match="already in manager"):
        client.register_system_shared_memory("data", key, 1)
    client.unregister_system_shared_memory("data")
    client.unregister_cuda_shared_memory()
    assert not client.get_system_shared_memory_status().regions
    with pytest.raises(InferenceServerException, match=r"NOT_FOUND.*Unable to find shared memory"):
        client.infer(MODEL, [images()])


@pytest.mark.parametrize(
    ("asked", "outputs", "words"),
    [
        (images(size=PIXELS), None, f"{PIXELS} bytes came, expected {ROWS * PIXELS} for UINT8"),
        (images(offset=2**40), None, "Invalid offset for shared memory region: 'data'"),
        (images(size=2**40), None, "Invalid offset \\+ byte size for shared memory region"),
        (images(), [output(LOGITS)], f"of {LOGITS} bytes came, expected at least {ROWS * LOGITS}"),
    ],
)
def test_what_does_not_fit_is_refused(
    client: triton.InferenceServerClient,
    key: str,
    asked: triton.InferInput,
    outputs: list[triton.InferRequestedOutput] | None,
    words: str,
) -> None:
    with pytest.raises(InferenceServerException, match=f"INVALID_ARGUMENT.*{words}"):
        client.infer(MODEL, [asked], outputs=outputs)


def test_a_region_that_shrank_ends_no_server(
    client: triton.InferenceServerClient, key: str
) -> None:
    os.truncate(Path("/dev/shm", key), 100)
    with pytest.raises(InferenceServerException, match="has shrunk: 100 bytes are left"):
        client.infer(MODEL, [images()])
    raw = triton.InferInput("images", [1, 3, 32, 32], "UINT8")
    raw.set_data_from_numpy(plain_images(1, 7))
    with pytest.raises(InferenceServerException, match="has shrunk: 0 bytes are left"):
        client.infer(MODEL, [raw], outputs=[output(LOGITS)])
    assert client.infer(MODEL, [raw]).as_numpy("logits")[0][0] == 7
    assert Path("/dev/shm", key).stat().st_size == 100


def test_nothing_is_registered_unless_it_is_turned_on() -> None:
    with (
        running_server("--engine", "fake", "--models", MODEL) as own,
        triton.InferenceServerClient(own.address) as client,
    ):
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()
        with pytest.raises(
            InferenceServerException, match=r"UNIMPLEMENTED.*--shared-memory system"
        ):
            client.register_system_shared_memory("data", "anything", 1)
        with pytest.raises(InferenceServerException, match="NOT_FOUND"):
            client.infer(MODEL, [images()])
