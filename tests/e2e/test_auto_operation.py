"""A family as one model while things happen: loads, a killed worker, refusals in time, explanations."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from rootmodels.weights_info import weights_path
from rootserve.client import NO_RETRIES, AsyncClient, Client, ServerError
from tests.support.model_files import model_of, write_small
from tests.support.server_process import (
    ServerProcess,
    command_image,
    infer_request,
    logits,
    plain_images,
    running_server,
    wait_until,
)

AUTO = "nin-auto"
MODELS = ("nin-orig", "nin-root-4", "nin-root-16")
FAKE = ("--engine", "fake", "--device", "cpu")
SERVED = (*FAKE, "--models", ",".join(MODELS))
NAP_S = 0.4


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server(*SERVED, "--explain", "100", "--caller-key", "x-tenant") as made:
        yield made


def rootserve(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rootserve.client", *arguments, "--server", server.address]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def auto_request(value: int, request_id: str = "", **parameters: str) -> oip.ModelInferRequest:
    request = infer_request(AUTO, plain_images(1, value), request_id)
    for key, text in parameters.items():
        request.parameters[key].string_param = text
    return request


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_killed_worker_loses_nothing(workers: int) -> None:
    with running_server(*SERVED, "--cpu-workers", str(workers)) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            answered = asyncio.Event()

            async def call(value: int) -> None:
                for _ in range(50):
                    request = auto_request(value)
                    request.parameters["accuracy_floor"].double_param = 0.9
                    response = await stub.ModelInfer(request, timeout=60)
                    assert logits(response)[0][0] == value
                    assert response.parameters["accuracy"].double_param >= 0.9
                    answered.set()

            callers = [asyncio.ensure_future(call(value)) for value in range(16)]
            await answered.wait()
            before = server.worker_pids()
            os.kill(before[0], signal.SIGKILL)
            await asyncio.gather(*callers)
        wait_until(lambda: len(server.worker_pids()) == workers)
        assert before[0] not in server.worker_pids()


async def test_a_deadline_that_cannot_be_kept_is_refused_with_what_could_be(
    server: ServerProcess,
) -> None:
    async with AsyncClient(server.address, retry=NO_RETRIES) as client:
        nap = command_image(b"sleep" + bytes([round(100 * NAP_S)]))
        for _ in range(10):
            await client.infer(AUTO, nap)  # from now on it is known to take so long
        naps = [asyncio.ensure_future(client.infer(AUTO, nap)) for _ in range(6)]
        await asyncio.sleep(0.1)
        with pytest.raises(ServerError) as caught:
            await client.infer(AUTO, plain_images(1), deadline_s=0.1, request_id="late")
        await asyncio.gather(*naps)
        error = caught.value
        assert error.code == "RESOURCE_EXHAUSTED"
        assert "nin-auto cannot answer within 100 ms: at the earliest " in error.details
        assert error.retry_after_s is not None
        assert error.promise is not None
        assert error.promise.model == AUTO
        assert error.promise.earliest_s is not None
        assert error.promise.earliest_s > 0.1
        (told,) = await client.explain("late")
        assert (told.outcome, told.message) == ("deadline_infeasible", error.details)
        assert told.promise is not None
        assert told.promise.earliest_s == pytest.approx(error.promise.earliest_s, abs=1e-5)
        assert told.rows_computing == 1


def test_an_answer_that_is_late_is_told_as_such(server: ServerProcess) -> None:
    nap = infer_request("nin-orig", command_image(b"sleep" + bytes([round(100 * NAP_S)])), "slow")
    nap.parameters["deadline_ms"].int64_param = 50
    server.stub.ModelInfer(nap)
    text = rootserve(server, "explain", "slow").stdout
    assert "within 50.0 ms" in text
    assert re.search(r"answered after [\d.]+ m?s, [\d.]+ m?s late", text)


def test_the_command_line_gives_a_request_an_id(server: ServerProcess, cat_path: Path) -> None:
    named = ("--model", AUTO, "--deadline-ms", "5000", "--id", "a-cat")
    answered = rootserve(server, "infer", str(cat_path), *named)
    assert "computed by" in answered.stdout
    assert "late" not in answered.stdout
    assert "request a-cat for nin-auto" in rootserve(server, "explain", "a-cat").stdout


def test_an_answer_is_explained_with_its_choice_and_its_caller(server: ServerProcess) -> None:
    request = auto_request(7, "why", variants="nin-root-4,nin-root-16")
    server.stub.ModelInfer(request, metadata=[("x-tenant", "alice")])
    told = json.loads(rootserve(server, "explain", "why", "--json").stdout)[0]
    assert (told["model"], told["outcome"], told["caller"]) == (AUTO, "ok", "alice")
    assert told["variants"] == ["nin-root-16", "nin-root-4"]
    batch = told["batch"]
    assert batch["variant"] in told["variants"]
    assert batch["accuracy"] > 0.89
    assert batch["predicted_s"] > 0
    assert batch["choice"]["reason"]
    candidates = {one["variant"] for one in batch["choice"]["candidates"]}
    assert batch["variant"] in candidates
    text = rootserve(server, "explain", "why").stdout
    assert "request why for nin-auto" in text
    assert "by nin-root-16 or nin-root-4" in text
    assert "caller  alice" in text
    assert batch["choice"]["reason"] in text
    server.stub.ModelInfer(infer_request("nin-orig", plain_images(1), "plain"))
    plain = json.loads(rootserve(server, "explain", "plain", "--json").stdout)[0]
    assert (plain["batch"]["variant"], plain["batch"]["choice"]) == ("nin-orig", None)


def test_explanations_that_are_not_there(server: ServerProcess) -> None:
    unknown = rootserve(server, "explain", "never")
    assert (unknown.returncode, unknown.stdout) == (3, "")
    assert "no request 'never' is among those kept, the last 100" in unknown.stderr
    none = rootserve(server, "explain", "--model", "nin-col-2")
    assert none.returncode == 2
    assert "no request of that model and outcome" in none.stderr
    wrong = rootserve(server, "explain", "--outcome", "fine")
    assert "outcome: 'fine' came, expected one of" in wrong.stderr
    assert json.loads(rootserve(server, "explain", "--model", "nin-col-2", "--json").stdout) == []


def test_the_table_of_latencies_is_told(server: ServerProcess) -> None:
    text = rootserve(server, "latency", "--models", "nin-root-4").stdout
    assert "nin-root-4  pixels" in text
    assert "nin-orig" not in text
    document = json.loads(rootserve(server, "latency", "--json").stdout)
    assert document["schema"] == "rootserve.latency/1"
    assert {row["model"] for row in document["latency"]} == set(MODELS)
    assert [member["variant"] for member in document["members"]] == list(MODELS)
    assert document["members"][0]["accuracy"] == 0.9026
    assert document["server"]["max_batch_rows"] == 32
    assert all(row["p99_s"] > 0 for row in document["latency"])
    missing = rootserve(server, "latency", "--models", "resnet*")
    assert missing.returncode == 2
    assert "matches none of nin-orig" in missing.stderr


def test_the_command_line_takes_a_family(server: ServerProcess, cat_path: Path) -> None:
    models = json.loads(rootserve(server, "models", "--json").stdout)
    (family,) = [model for model in models if model["members"]]
    assert (family["name"], family["members"], family["state"]) == (AUTO, list(MODELS), "ready")
    assert rootserve(server, "health", AUTO).returncode == 0
    wanted = ("--accuracy-floor", "0.9", "--deadline-ms", "30000")
    told = rootserve(server, "infer", str(cat_path), "--model", AUTO, *wanted)
    assert told.returncode == 0, told.stderr
    assert "computed by nin-" in told.stdout
    arguments = ("--model", AUTO, "--variants", "nin-root-4", "--json")
    found = json.loads(rootserve(server, "infer", str(cat_path), *arguments).stdout)
    assert found["variants"] == [{"variant": "nin-root-4", "accuracy": 0.902}]
    refused = rootserve(server, "infer", str(cat_path), "-m", AUTO, "--accuracy-floor", "0.99")
    assert refused.returncode == 3
    assert "expected at most 0.9026, the highest that is served (nin-orig)" in refused.stderr


def test_without_a_place_for_them_nothing_is_explained() -> None:
    with running_server(*FAKE, "--models", "nin-orig") as server:
        refused = rootserve(server, "explain")
        assert refused.returncode == 3
        assert "start the server with --explain" in refused.stderr
        assert rootserve(server, "latency").returncode == 0
        with Client(server.address) as client:
            assert client.families() == []


def load(server: ServerProcess, name: str) -> None:
    server.stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name=name), timeout=60)


def unload(server: ServerProcess, name: str) -> None:
    server.stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name=name), timeout=60)


async def test_members_come_and_go_while_requests_are_answered() -> None:
    control = ("--model-control", "explicit")
    with running_server(*FAKE, "--models", "nin-orig,nin-root-4", *control) as server:
        async with AsyncClient(server.address) as client:
            stop = asyncio.Event()

            async def call(value: int) -> set[str | None]:
                seen = set()
                while not stop.is_set():
                    answer = await client.infer(AUTO, plain_images(1, value))
                    assert answer.logits[0][0] == value
                    seen.add(answer.variant)
                return seen

            callers = [asyncio.ensure_future(call(value)) for value in range(8)]
            for name in ("nin-root-16", "nin-root-8"):
                await asyncio.to_thread(load, server, name)
            (family,) = await client.families()
            assert family.members == ("nin-orig", "nin-root-4", "nin-root-8", "nin-root-16")
            for name in ("nin-orig", "nin-root-4"):
                await asyncio.to_thread(unload, server, name)
            (family,) = await client.families()
            assert family.members == ("nin-root-8", "nin-root-16")
            answer = await client.infer(AUTO, plain_images(1, 3))
            assert answer.variant in family.members
            stop.set()
            assert set().union(*await asyncio.gather(*callers)) <= {
                "nin-orig", "nin-root-4", "nin-root-8", "nin-root-16"
            }  # fmt: skip
            await asyncio.to_thread(unload, server, "nin-root-8")
            assert await client.families() == []
            with pytest.raises(ServerError, match="no model is called 'nin-auto'; served"):
                await client.infer(AUTO, plain_images(1))


async def test_what_only_one_variant_may_compute_is_answered_before_it_goes() -> None:
    control = ("--model-control", "explicit")
    with running_server(*SERVED, *control) as server:
        async with AsyncClient(server.address) as client:
            nap = command_image(b"sleep" + bytes([round(100 * NAP_S)]))
            calls = [
                asyncio.ensure_future(client.infer(AUTO, nap, variants=["nin-orig"]))
                for _ in range(3)
            ]
            await asyncio.sleep(0.2)
            await asyncio.to_thread(unload, server, "nin-orig")
            assert [(await call).variant for call in calls] == ["nin-orig"] * 3
            with pytest.raises(ServerError, match="'nin-orig' came, which nin-auto does not"):
                await client.infer(AUTO, plain_images(1), variants=["nin-orig"])


def test_a_file_of_a_familys_name(tmp_path: Path) -> None:
    for name in MODELS[:2]:
        shutil.copy(weights_path(name), tmp_path)
    arguments = (*FAKE, "--weights", str(tmp_path), "--model-control", "explicit")
    with running_server(*arguments) as server:
        with pytest.raises(grpc.RpcError) as caught:
            unload(server, AUTO)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert "two of its variants are: nin-orig, nin-root-4" in caught.value.details()
        write_small(tmp_path, model_of(AUTO))
        with pytest.raises(grpc.RpcError) as caught:
            load(server, AUTO)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "the family nin is served under this name" in caught.value.details()
        assert server.infer(AUTO, plain_images(1, 5))[0][0] == 5
    with running_server(*arguments) as server:
        assert "the family nin is not served as one model" in server.log()
        response = server.stub.ModelInfer(infer_request(AUTO, plain_images(1, 5)))
        assert "variant" not in response.parameters
        assert tuple(response.outputs[0].shape) == (1, len(model_of(AUTO).classes))


def test_a_family_can_be_named_where_models_are() -> None:
    with running_server(*FAKE, "--models", AUTO) as server, Client(server.address) as client:
        (family,) = client.families()
        assert len(family.members) == 14


def test_files_that_tell_their_original_are_a_family(tmp_path: Path) -> None:
    write_small(tmp_path, model_of("mine"))
    write_small(tmp_path, model_of("mine-root-2", family="mine", topology="root", degree=2))
    arguments = (*FAKE, "--weights", str(tmp_path))
    with running_server(*arguments) as server, Client(server.address) as client:
        answer = client.infer("mine-auto", plain_images(2, 9))
        assert answer.variant in ("mine", "mine-root-2")
        assert answer.logits.shape == (2, len(model_of("mine").classes))
