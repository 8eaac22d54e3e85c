"""The library as programs use it: retries, threads, and the example of the documentation."""

import gc
import inspect
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest

from rootserve.client.blocking import Client
from rootserve.client.errors import InputError, ServerError, Unreachable
from rootserve.client.inference import AsyncClient
from rootserve.client.retry import NO_RETRIES, RetryPolicy
from tests.integration.client.fake_rootserve import FakeRootserve
from tests.support.server_process import wait_until

IMAGES = np.full((2, 3, 32, 32), 7, np.uint8)
DOCUMENT = Path(__file__).parents[3] / "docs" / "client.md"


def first_fail(fake: FakeRootserve, times: int, code: grpc.StatusCode) -> None:
    fake.fail = lambda number: code if number < times else None


async def test_a_full_queue_is_tried_again_as_the_server_asks(fake: FakeRootserve) -> None:
    first_fail(fake, 2, grpc.StatusCode.RESOURCE_EXHAUSTED)
    fake.retry_after_s = 0.01
    async with AsyncClient(fake.address) as client:
        answer = await client.infer("nin-orig", IMAGES)
    assert list(answer.logits.argmax(axis=1)) == [7, 7]
    assert len(fake.requests) == 3


def test_threads_have_the_same(fake: FakeRootserve) -> None:
    first_fail(fake, 2, grpc.StatusCode.UNAVAILABLE)
    answers = []
    with Client(fake.address, retry=RetryPolicy(first_s=0.01)) as client:
        assert client.health() == "SERVING"
        assert client.model("nin-orig").image_size == 32
        assert client.server_info().version == "9.8.7"
        threads = [
            threading.Thread(target=lambda: answers.append(client.infer("nin-orig", IMAGES)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(ServerError, match="NOT_FOUND: no model 'resnet'"):
            client.model("resnet")
    assert [list(answer.logits.argmax(axis=1)) for answer in answers] == [[7, 7]] * 4
    assert len(fake.requests) == 6


@pytest.fixture
def files(cat_path: Path) -> list[bytes]:
    return [cat_path.read_bytes()] * 3


async def test_files_are_sent_for_the_server_to_decode(
    fake: FakeRootserve, files: list[bytes]
) -> None:
    async with AsyncClient(fake.address) as client:
        answer = await client.infer_encoded("nin-orig", files, priority=1, deadline_s=2.0)
        with pytest.raises(InputError, match="no pictures"):
            await client.infer_encoded("nin-orig", [])
    with Client(fake.address) as client:
        again = client.infer_encoded("nin-orig", files, outputs=["probabilities"])
    assert answer.logits.shape == again.probabilities.shape == (3, 10)
    assert (answer.logits.argmax(axis=1) == again.probabilities.argmax(axis=1)).all()
    assert fake.requests[0].parameters["deadline_ms"].int64_param == 2000


async def test_what_is_not_to_be_tried_again_is_not(fake: FakeRootserve) -> None:
    first_fail(fake, 9, grpc.StatusCode.INTERNAL)
    async with AsyncClient(fake.address) as client:
        with pytest.raises(ServerError, match="INTERNAL"):
            await client.infer("nin-orig", IMAGES)
    assert len(fake.requests) == 1
    first_fail(fake, 9, grpc.StatusCode.RESOURCE_EXHAUSTED)
    fake.retry_after_s = 0.25
    with (
        Client(fake.address, retry=NO_RETRIES) as client,
        pytest.raises(ServerError) as refused,
    ):
        client.infer("nin-orig", IMAGES)
    assert refused.value.retry_after_s == 0.25
    assert len(fake.requests) == 2


async def test_tries_end_with_the_deadline(fake: FakeRootserve) -> None:
    first_fail(fake, 99, grpc.StatusCode.RESOURCE_EXHAUSTED)
    fake.retry_after_s = 0.4
    policy = RetryPolicy(attempts=50)
    async with AsyncClient(fake.address, timeout_s=0.5, retry=policy) as client:
        with pytest.raises(ServerError, match=r"RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED"):
            await client.infer("nin-orig", IMAGES)
    assert len(fake.requests) <= 2


def test_threads_learn_at_once_that_nobody_is_there(nobody: str) -> None:
    with pytest.raises(Unreachable, match="is rootserve-server running there"):
        Client(nobody).__enter__()


def test_leaving_ends_what_other_threads_have_under_way(fake: FakeRootserve) -> None:
    failures: list[Exception] = []
    fake.delay_s = 1.0

    def ask(client: Client) -> None:
        try:
            client.infer("nin-orig", IMAGES)
        except ServerError as error:
            failures.append(error)

    with Client(fake.address) as client:
        asking = threading.Thread(target=ask, args=(client,))
        asking.start()
        wait_until(lambda: len(fake.requests) > 0)
    asking.join()
    assert [str(error) for error in failures] == ["CANCELLED: the client was closed"]
    with pytest.raises(ValueError, match="expected calls within its 'with' alone"):
        client.health()
    # It may be entered again, as the client for asyncio may.
    with client:
        assert client.health() == "SERVING"


def test_a_client_that_was_not_entered_says_so(fake: FakeRootserve) -> None:
    with pytest.raises(ValueError, match=r"not open: expected 'with Client\(...\) as client'"):
        Client(fake.address).models()


INTERRUPTED = """
import sys
import numpy as np
from rootserve.client import Client

images = np.zeros((2, 3, 32, 32), np.uint8)
with Client(sys.argv[1]) as client:
    try:
        client.infer("nin-orig", images)
    except KeyboardInterrupt:
        print(client.infer("nin-orig", images).logits.shape)
"""


def test_ctrl_c_ends_the_call_and_leaves_the_client_usable(fake: FakeRootserve) -> None:
    fake.delay_s = 5.0
    words = [sys.executable, "-c", INTERRUPTED, fake.address]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(fake.requests) > 0)
        fake.delay_s = 0.0
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "(2, 10)\n")


def test_a_forgotten_client_ends_its_thread(fake: FakeRootserve) -> None:
    before = set(threading.enumerate())
    client = Client(fake.address).__enter__()
    assert client.health() == "SERVING"
    (thread,) = [each for each in set(threading.enumerate()) - before if "rootserve" in each.name]
    del client
    gc.collect()
    thread.join()


PROGRAM = """
import sys, threading, time
import numpy as np
from rootserve.client import Client, ServerError

client = Client(sys.argv[1]).__enter__()
print(client.health())
if sys.argv[2] == "busy":
    def ask():
        try:
            client.infer("nin-orig", np.zeros((1, 3, 32, 32), np.uint8))
        except ServerError as error:
            print(error)
    threading.Thread(target=ask, daemon=True).start()
    time.sleep(0.3)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_program_may_end_without_leaving(fake: FakeRootserve, state: str) -> None:
    fake.delay_s = 2.0
    words = [sys.executable, "-W", "error", "-c", PROGRAM, fake.address, state]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("SERVING")


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, inspect.Signature]:
        return {
            name: inspect.signature(each)
            for name, each in vars(kind).items()
            if not name.startswith("_") and callable(each)
        }

    assert methods(Client) == methods(AsyncClient)
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


def test_the_example_of_the_documentation_runs(fake: FakeRootserve, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert "127.0.0.1:8001" in example
    program = tmp_path / "example.py"
    program.write_text(example.replace("127.0.0.1:8001", fake.address))
    words = [sys.executable, "-W", "error", str(program)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "8 (4, 10)" in done.stdout
    assert done.stdout.rstrip().endswith("{}")
