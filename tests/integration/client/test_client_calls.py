"""The library's client and its accuracy function against a fake server."""

import asyncio
import socket

import grpc
import numpy as np
import pytest

from rootserve.client.errors import InputError, MalformedAnswer, ServerError, Unreachable
from rootserve.client.evaluate import accuracy
from rootserve.client.inference import AsyncClient
from tests.integration.client.fake_rootserve import CLASSES, TOTAL_S, FakeRootserve


def pictures(*firsts: int) -> np.ndarray:
    images = np.zeros((len(firsts), 3, 32, 32), np.uint8)
    images[:, 0, 0, 0] = firsts
    return images


async def test_infer_gives_logits_and_timeline(fake: FakeRootserve) -> None:
    async with AsyncClient(fake.address) as client:
        answer = await client.infer("nin-orig", pictures(3, 7), priority=1, deadline_s=0.25)
    assert answer.logits.argmax(1).tolist() == [3, 7]
    assert answer.logits.dtype == np.float32
    assert answer.timeline is not None
    assert answer.timeline.total_s == pytest.approx(TOTAL_S)
    assert answer.timeline.rest_s == pytest.approx(0.0001)
    assert (answer.timeline.worker, answer.timeline.engine) == ("cpu-0", "fake")
    (request,) = fake.requests
    assert request.inputs[0].name == "images"
    assert request.inputs[0].datatype == "UINT8"
    assert list(request.inputs[0].shape) == [2, 3, 32, 32]
    assert request.parameters["priority"].int64_param == 1
    assert request.parameters["deadline_ms"].int64_param == 250


async def test_infer_gives_the_outputs_asked_for(fake: FakeRootserve) -> None:
    async with AsyncClient(fake.address) as client:
        answer = await client.infer("nin-orig", pictures(1), outputs=["probabilities"])
    np.testing.assert_allclose(answer.probabilities.sum(1), 1, rtol=1e-6)
    with pytest.raises(MalformedAnswer, match="no output 'logits'"):
        _ = answer.logits


async def test_a_server_without_timeline_is_fine(fake: FakeRootserve) -> None:
    fake.has_timeline = False
    async with AsyncClient(fake.address) as client:
        assert (await client.infer("nin-orig", pictures(1))).timeline is None


async def test_catalog_is_read_as_plain_values(fake: FakeRootserve) -> None:
    async with AsyncClient(fake.address) as client:
        orig, root, _ = await client.models()
        info = await client.server_info()
    assert (orig.name, orig.accuracy, orig.state) == ("nin-orig", 0.9125, "ready")
    assert orig.classes == tuple(CLASSES)
    assert orig.paper is not None
    assert orig.paper.cpu_ms == 39.0
    assert (root.accuracy, root.engine, root.paper, root.state) == (None, None, None, "unloaded")
    assert info.started_at == "1970-01-01T00:00:00+00:00"
    assert info.workers[0].device_name == "Abacus"


async def test_health_of_server_and_model(fake: FakeRootserve) -> None:
    fake.health = "NOT_SERVING"
    async with AsyncClient(fake.address) as client:
        assert await client.health() == "NOT_SERVING"
        assert await client.health("nin-orig") == "SERVING"


async def test_unknown_model_names_the_known_ones(fake: FakeRootserve) -> None:
    async with AsyncClient(fake.address) as client:
        with pytest.raises(ServerError, match=r"no model 'resnet'.*nin-orig, nin-root-4") as caught:
            await client.model("resnet")
    assert caught.value.code == "NOT_FOUND"


async def test_server_errors_carry_code_and_words(fake: FakeRootserve) -> None:
    fake.fail = lambda _: grpc.StatusCode.RESOURCE_EXHAUSTED
    async with AsyncClient(fake.address) as client:
        with pytest.raises(ServerError, match="RESOURCE_EXHAUSTED: as the test") as caught:
            await client.infer("nin-orig", pictures(1))
    assert caught.value.code == "RESOURCE_EXHAUSTED"


async def test_refused_connection_is_unreachable_at_once(nobody: str) -> None:
    with pytest.raises(Unreachable, match=nobody):
        async with asyncio.timeout(20), AsyncClient(nobody, connect_timeout_s=60):
            pytest.fail("nobody listens there")


async def test_a_silent_listener_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match="no gRPC server answers"):
            async with AsyncClient(address, connect_timeout_s=0.3):
                pytest.fail("it does not speak gRPC")


async def test_accuracy_counts_right_answers(fake: FakeRootserve) -> None:
    images = pictures(*[n % 10 for n in range(103)])
    labels = np.arange(103) % 10
    labels[:13] = (labels[:13] + 1) % 10
    async with AsyncClient(fake.address) as client:
        result = await accuracy(client, "nin-orig", images, labels, rows=10, concurrency=3)
    assert result == pytest.approx(90 / 103)
    assert sorted(request.inputs[0].shape[0] for request in fake.requests) == [3] + [10] * 10


async def test_accuracy_fails_with_its_first_error(fake: FakeRootserve) -> None:
    fake.fail = lambda number: grpc.StatusCode.INTERNAL if number == 2 else None
    async with AsyncClient(fake.address) as client:
        with pytest.raises(ServerError, match="INTERNAL"):
            await accuracy(client, "nin-orig", pictures(*[1] * 40), np.ones(40, int), rows=1)


async def test_accuracy_wants_a_label_for_each_image(fake: FakeRootserve) -> None:
    async with AsyncClient(fake.address) as client:
        with pytest.raises(InputError, match="2 images and 3 labels"):
            await accuracy(client, "nin-orig", pictures(1, 2), np.ones(3, int))
