"""`rootserve table8` against a fake server whose times and classes one can compute."""

import io
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from rich.console import Console

from rootserve.client.inference import AsyncClient
from rootserve.client.table8.measure import Plan, measure, survey
from rootserve.client.telling import telling, time_left
from tests.integration.client.conftest import signalled
from tests.integration.client.fake_rootserve import BATCH_ROWS, COMPUTE_S, FakeRootserve

Rootserve = Callable[..., tuple[int, str, str]]
MS = 1e3 * COMPUTE_S / BATCH_ROWS


class GpuRootserve(FakeRootserve):
    devices = ("cuda:0",)

    def GetServerInfo(self, request, context):  # noqa: N802
        info = super().GetServerInfo(request, context)
        worker = info.workers[0]
        del info.workers[:]
        for device in self.devices:
            worker.device, worker.device_name, worker.threads = device, "H1", 0
            info.workers.append(worker)
        return info


class MixedRootserve(GpuRootserve):
    devices = ("cpu", "cuda:0")


@pytest.fixture
def gpu() -> Iterator[GpuRootserve]:
    with GpuRootserve() as server:
        yield server


def test_the_table_of_a_cpu(
    rootserve: Rootserve, fake: FakeRootserve, sample_path: Path, tmp_path: Path
) -> None:
    file, page = tmp_path / "table8.json", tmp_path / "table8.md"
    code, out, _ = rootserve(
        "table8", "--data", sample_path, "--rounds", 2, "--json", file, "--markdown", page,
        "--server", fake.address,
    )  # fmt: skip
    assert code == 0
    orig, root4, root8 = json.loads(file.read_text())
    assert orig["cpu_ms"] == pytest.approx(MS)
    assert (orig["gpu_ms"], orig["speedup"]) == (None, 1.0)
    assert orig["cpu"]["rounds_ms"] == pytest.approx([MS, MS])
    assert (orig["cpu"]["device_name"], orig["cpu"]["rows"]) == ("Abacus", 64)
    assert 0 < orig["accuracy"] < 0.3  # the fake's class is the first byte's last digit
    assert orig["accuracy_source"] == "1,000 images through the service"
    assert root4["note"] == "untrained and not served"
    assert root8["note"] == "failed: weights [do not] fit"
    assert "nin-orig" in out
    assert page.read_text().startswith("| model |")
    # Two turns of four batches of the server's limit, then the accuracy in such batches.
    assert [request.inputs[0].shape[0] for request in fake.requests[:8]] == [64] * 8
    assert sum(request.inputs[0].shape[0] for request in fake.requests[8:]) == 1000


def test_without_data_the_accuracy_is_the_catalogues(
    rootserve: Rootserve, fake: FakeRootserve, tmp_path: Path
) -> None:
    file = tmp_path / "table8.json"
    args = ("--rounds", 1, "--rows", 5, "--json", file, "--server", fake.address)
    assert rootserve("table8", *args)[0] == 0
    orig = json.loads(file.read_text())[0]
    assert (orig["accuracy"], orig["accuracy_source"]) == (0.9125, "the server's catalogue")
    assert orig["cpu"]["rows"] == 5


def test_a_gpu_fills_its_column_and_merges_with_the_cpus(
    rootserve: Rootserve, fake: FakeRootserve, gpu: GpuRootserve, tmp_path: Path
) -> None:
    cpu_file, both = tmp_path / "cpu.json", tmp_path / "both.json"
    rootserve("table8", "--rounds", 1, "--json", cpu_file, "--server", fake.address)
    code, out, _ = rootserve(
        "table8", "--rounds", 3, "--merge", cpu_file, "--json", both, "--server", gpu.address
    )
    assert code == 0
    orig = json.loads(both.read_text())[0]
    assert (orig["cpu_ms"], orig["gpu_ms"]) == (pytest.approx(MS), pytest.approx(MS))
    assert (orig["cpu"]["device"], orig["gpu"]["device"]) == ("cpu", "cuda:0")
    assert "CPU: Abacus" in out
    assert "GPU: H1" in out


def test_a_table_of_the_same_device_is_refused_before_anything_is_measured(
    rootserve: Rootserve, fake: FakeRootserve, tmp_path: Path
) -> None:
    file = tmp_path / "cpu.json"
    rootserve("table8", "--rounds", 1, "--json", file, "--server", fake.address)
    before = len(fake.requests)
    code, _, err = rootserve("table8", "--merge", file, "--server", fake.address)
    assert code == 2
    assert "has cpu times, as this one" in err
    assert len(fake.requests) == before


def test_a_server_of_both_kinds_is_refused(rootserve: Rootserve) -> None:
    with MixedRootserve() as mixed:
        code, _, err = rootserve("table8", "--server", mixed.address)
    assert code == 2
    assert "computes on cpu, cuda:0: expected CPUs alone or GPUs alone" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rows", 65), "takes at most 64 in a batch"),
        (("--family", "vgg"), "family 'vgg': expected nin"),
        (("--rounds", 0), "rounds 0: expected 1 to 1,000"),
        (("--json", "/nowhere/table8.json"), "/nowhere/table8.json: cannot be written"),
        (("--figure", "/nowhere/t.png"), "/nowhere/t.png: cannot be written"),
        (("--merge", "/nowhere/cpu.json"), "/nowhere/cpu.json: cannot be read"),
        (("--data", "/nowhere/data"), "/nowhere/data: no such file or folder"),
    ],
)
def test_bad_input_costs_no_time(
    rootserve: Rootserve, fake: FakeRootserve, arguments: tuple[object, ...], words: str
) -> None:
    code, _, err = rootserve("table8", *arguments, "--server", fake.address)
    assert (code, len(fake.requests)) == (2, 0)
    assert words in err


def test_answers_without_a_timeline_are_refused(rootserve: Rootserve, fake: FakeRootserve) -> None:
    fake.has_timeline = False
    code, _, err = rootserve("table8", "--server", fake.address)
    assert code == 3
    assert "expected a Rootserve server" in err


def test_nobody_there(rootserve: Rootserve, nobody: str) -> None:
    code, _, err = rootserve("table8", "--server", nobody)
    assert code == 3
    assert "no gRPC server answers" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_measured_is_kept_when_it_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of a round: the rounds before it count, the same ones of every variant."""
    with FakeRootserve() as two:
        two.served = {"nin-orig", "nin-root-4"}
        turn = 4
        in_the_third = threading.Event()

        def fail(request: int) -> None:
            # The second variant of the third round.
            if request == 5 * turn + 1:
                two.delay_s = 5.0
                in_the_third.set()

        two.fail = fail
        file, page = tmp_path / "table8.json", tmp_path / "table8.md"
        code, out, err = signalled(
            number, in_the_third.is_set,
            "table8", "--rounds", 9, "--rows", 2, "--json", file, "--markdown", page,
            "--server", two.address,
        )  # fmt: skip
    assert code == 130
    assert err == (
        f"rootserve: interrupted; what was measured until then is printed and in {file}, {page}\n"
    )
    assert "2 rounds" in out
    orig, root4, root8 = json.loads(file.read_text())
    assert [len(row["cpu"]["rounds_ms"]) for row in (orig, root4)] == [2, 2]
    assert root4["speedup"] == pytest.approx(1.0)
    assert root8["cpu"] is None


def test_what_was_measured_is_kept_when_the_server_fails(
    rootserve: Rootserve, fake: FakeRootserve, tmp_path: Path
) -> None:
    fake.fail = lambda request: grpc.StatusCode.INTERNAL if request >= 8 else None
    file = tmp_path / "table8.json"
    code, out, err = rootserve(
        "table8", "--rounds", 9, "--rows", 2, "--json", file, "--server", fake.address
    )
    assert code == 3
    assert "INTERNAL" in err
    assert "2 rounds" in out
    assert len(json.loads(file.read_text())[0]["cpu"]["rounds_ms"]) == 2


async def test_the_time_that_remains_is_told(fake: FakeRootserve) -> None:
    told: list[str] = []
    async with AsyncClient(fake.address) as client:
        table = await survey(client)
        await measure(client, table, Plan(rounds=3, rows=2), told.append)
    assert [re.sub(r"\d+ s left", "N s left", each) for each in told] == [
        "round 1 of 3: nin-orig",
        "round 2 of 3: nin-orig, N s left",
        "round 3 of 3: nin-orig, N s left",
    ]


def test_only_variants_that_match_and_the_original_one(
    rootserve: Rootserve, fake: FakeRootserve, tmp_path: Path
) -> None:
    fake.served = {"nin-orig", "nin-root-4"}
    file = tmp_path / "table8.json"
    args = ("--rounds", 1, "--rows", 2, "--json", file, "--server", fake.address)
    assert rootserve("table8", "--models", "*-4", *args)[0] == 0
    rows = json.loads(file.read_text())
    assert [row["name"] for row in rows] == ["nin-orig", "nin-root-4"]
    assert rows[1]["speedup"] == pytest.approx(1.0)
    code, _, err = rootserve("table8", "--models", "nin-orig,x*", *args)
    assert code == 2
    assert "models 'x*': matches none of nin-orig, nin-root-4, nin-root-8" in err


def test_off_a_terminal_lines_come_though_nothing_new_is_told() -> None:
    screen = Console(file=io.StringIO(), width=80)
    assert isinstance(screen.file, io.StringIO)
    with telling(screen, "[at] first", first_s=0.0, every_s=0.001) as tell:
        while "still [at] first\n" not in screen.file.getvalue():
            time.sleep(0.001)
        tell("[at] last")
        while "\n[at] last\n" not in screen.file.getvalue():
            time.sleep(0.001)
    written = screen.file.getvalue()
    assert written.startswith("[at] first\nstill [at] first\n")
    time.sleep(0.02)
    assert screen.file.getvalue() == written  # nothing comes later


def test_what_takes_little_time_says_nothing() -> None:
    screen = Console(file=io.StringIO(), width=80)
    with telling(screen, "a moment") as tell:
        tell("and another")
    assert isinstance(screen.file, io.StringIO)
    assert not screen.file.getvalue()


def test_time_that_is_left_in_words() -> None:
    assert [time_left(seconds) for seconds in (-1, 9.6, 59.4, 60, 246)] == [
        "0 s", "10 s", "59 s", "1 min 00 s", "4 min 10 s",
    ]  # fmt: skip
