"""Pictures sent as JPEG and PNG files: answers as for raw images, and a bad one refused alone."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from PIL import Image
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.workers import encoding
from tests.support.server_process import (
    ServerProcess,
    command_image,
    infer_request,
    logits,
    plain_images,
    running_server,
)

MODEL = "nin-root-16"
CALLERS = 64
IMAGES_PER_CALL = 8


def picture(value: int, kind: str = "PNG", side: int = 32) -> bytes:
    """A picture of one value: the fake engine's logit c is ``value`` + c."""
    file = io.BytesIO()
    Image.new("L", (side, side), value).save(file, kind)
    return file.getvalue()


def encoded_request(*files: bytes, request_id: str = "") -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=MODEL, id=request_id)
    request.inputs.add(name="encoded", datatype="BYTES", shape=(len(files),))
    request.raw_input_contents.append(encoding.join(files))
    return request


@pytest.fixture(scope="module")
def fake() -> Iterator[ServerProcess]:
    options = ("--engine", "fake", "--models", MODEL, "--max-batch-rows", "16", "--threads", "2")
    options += ("--listed-tensors", "all", "--max-image-mb", "1", "--max-image-megapixels", "1")
    with running_server(*options) as made:
        yield made


def test_each_row_is_its_own_picture(fake: ServerProcess) -> None:
    files = [picture(value, kind) for value, kind in enumerate(["PNG", "JPEG"] * 8)]
    response = fake.stub.ModelInfer(encoded_request(*files))
    np.testing.assert_allclose(logits(response)[:, 0], range(16), atol=1)
    assert response.parameters["decode_ns"].int64_param > 0
    compute_ns = response.parameters["compute_ns"].int64_param
    assert compute_ns > response.parameters["decode_ns"].int64_param


def test_a_raw_request_has_no_time_for_decoding(fake: ServerProcess) -> None:
    response = fake.stub.ModelInfer(infer_request(MODEL, plain_images(1)))
    assert "decode_ns" not in response.parameters


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (picture(1)[:-30], "row 1: the picture is damaged: image file is truncated"),
        (picture(1, side=1001), "row 1: the picture has 1001 x 1001 pixels, 1.0 million; expected"),
        (picture(1, "JPEG", 400)[:-90], "row 1: the picture is damaged: image file is truncated"),
        (b"", "row 1: no bytes came, expected JPEG or PNG"),
        (b"BM" + bytes(100), "row 1: a file that begins with 42 4d"),
        (picture(1) + bytes(2**20), "row 1: 10486"),
    ],
    ids=["truncated PNG", "too large", "truncated JPEG", "empty", "BMP", "too many bytes"],
)
def test_a_bad_picture_is_refused_by_row(fake: ServerProcess, bad: bytes, words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        fake.stub.ModelInfer(encoded_request(picture(0), bad, bad))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"tensor encoded: {words}" in caught.value.details()


def test_bad_pictures_cost_the_requests_beside_them_nothing(fake: ServerProcess) -> None:
    # While one request keeps the worker, those that come share the next batches.
    slow = fake.stub.ModelInfer.future(infer_request(MODEL, command_image(b"sleep\x1e")))
    truncated = picture(9)[:-30]
    requests = {
        "pictures": encoded_request(picture(3), picture(4, "JPEG")),
        "bad": encoded_request(picture(5), truncated),
        "bytes": infer_request(MODEL, plain_images(2, 6)),
        "bad too": encoded_request(truncated),
        "floats": infer_request(MODEL, np.full((1, 3, 32, 32), 0.2, np.float32)),
        "picture": encoded_request(picture(7)),
    }
    pids = fake.worker_pids()
    calls = {name: fake.stub.ModelInfer.future(request) for name, request in requests.items()}
    slow.result()
    expected = {"pictures": [3, 4], "bytes": [6, 6], "floats": [51], "picture": [7]}
    for name, call in calls.items():
        if name in expected:
            np.testing.assert_allclose(logits(call.result())[:, 0], expected[name], atol=1)
        else:
            assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "the picture is damaged" in call.details()
    assert fake.worker_pids() == pids


def test_tritonclient_sends_files_as_objects(fake: ServerProcess) -> None:
    files = np.array([[picture(10)], [picture(20, "JPEG", 300)]], np.object_)
    tensor = triton.InferInput("encoded", [2, 1], "BYTES")
    tensor.set_data_from_numpy(files)
    with triton.InferenceServerClient(fake.address) as client:
        metadata = client.get_model_metadata(MODEL)
        assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
            ("images", "UINT8", [-1, 3, 32, 32]),
            ("encoded", "BYTES", [-1, 1]),
        ]
        config = client.get_model_config(MODEL).config
        assert [(each.name, each.optional) for each in config.input] == [
            ("images", True),
            ("encoded", True),
        ]
        answer = client.infer(MODEL, [tensor]).as_numpy("logits")
    np.testing.assert_allclose(answer[:, 0], [10, 20], atol=1)


async def test_tritonclient_aio_and_one_dimension(fake: ServerProcess) -> None:
    tensor = triton.InferInput("encoded", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([picture(30)], np.object_))
    async with triton_aio.InferenceServerClient(fake.address) as client:
        answer = (await client.infer(MODEL, [tensor])).as_numpy("logits")
    np.testing.assert_allclose(answer[:, 0], [30], atol=1)


def test_a_real_network_sees_the_same_in_a_file_as_in_its_pixels(cat_path: Path) -> None:
    cat = Image.open(cat_path).convert("RGB")
    pixels = np.asarray(cat).transpose(2, 0, 1)[None]
    file = io.BytesIO()
    cat.save(file, "JPEG", quality=95, subsampling=0)
    with running_server("--device", "cpu", "--models", MODEL) as server:
        raw = server.infer(MODEL, pixels)
        png = logits(server.stub.ModelInfer(encoded_request(cat_path.read_bytes())))
        jpeg = logits(server.stub.ModelInfer(encoded_request(file.getvalue())))
    np.testing.assert_allclose(png, raw, atol=1e-4)
    assert np.abs(jpeg - raw).max() < 0.1 * np.ptp(raw)


def test_a_network_of_imagenets_size_sees_the_same_as_well() -> None:
    y, x = np.mgrid[0:375, 0:500] / 400
    channels = [255 * x / 1.25, 255 * y, 127 + 100 * np.sin(9 * x + 4 * y)]
    photo = Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=92)
    # As torchvision evaluates: shorter side 256, then the middle 224.
    cropped = photo.resize((341, 256), Image.Resampling.BILINEAR).crop((58, 16, 282, 240))
    pixels = np.asarray(cropped).transpose(2, 0, 1)[None].copy()
    model = "resnet50-root-64"
    request = encoded_request(file.getvalue(), file.getvalue())
    request.model_name = model
    with running_server("--device", "cpu", "--models", model, "--max-batch-rows", "2") as server:
        raw = server.infer(model, pixels)
        encoded = logits(server.stub.ModelInfer(request))
    assert encoded.shape == (2, 1000)
    assert np.abs(encoded - raw).max() < 0.05 * np.ptp(raw)


def memory_kib(pid: int, key: str) -> int:
    """A figure of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise AssertionError(f"no {key}")


def test_the_front_process_keeps_no_copies() -> None:
    """64 callers with 8 pictures each, again and again."""
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    request = encoded_request(*[file.getvalue()] * IMAGES_PER_CALL)
    at_once_kib = CALLERS * request.ByteSize() / 1024
    assert at_once_kib > 35_000
    with running_server("--engine", "fake", "--models", MODEL) as server:
        pid = server.process.pid
        server.stub.ModelInfer(request)
        before_kib = memory_kib(pid, "VmRSS")
        with ThreadPoolExecutor(CALLERS) as callers:
            for _ in range(10):
                list(callers.map(lambda _: server.stub.ModelInfer(request), range(CALLERS)))
        # As it came, as a message, as what is to be computed; and the allocator does not give all back.
        assert memory_kib(pid, "VmHWM") - before_kib < 5 * at_once_kib + 64 * 1024
        # The worker's memory was given up but for what raw images may take.
        assert memory_kib(pid, "RssShmem") < 2 * 32 * 3 * 32 * 32 * 4 / 1024 + 512
