"""`rootserve choose` against a fake server whose speed and classes one can tell."""

import asyncio
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from rootserve.client.choice import Measured, Plan, measure
from rootserve.client.choice.measure import Surroundings
from rootserve.client.credentials import Connection
from rootserve.client.dataset import Dataset
from rootserve.client.errors import InputError, ServerError, Unreachable
from rootserve.client.inference import AsyncClient
from rootserve.client.load import LoadOptions, LoadResult
from tests.integration.client.conftest import signalled
from tests.integration.client.fake_rootserve import BATCH_ROWS, COMPUTE_S, FakeRootserve
from tests.support.load_results import measured as measured_of
from tests.support.load_results import recorder_of

Rootserve = Callable[..., tuple[int, str, str]]
LIMITS = {"nin-orig": 100.0, "nin-root-4": 300.0}
# Ten images, of which the fake's class is right for six.
DATA = Dataset(
    np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1) * np.ones((1, 3, 32, 32), np.uint8),
    np.array([0, 1, 2, 3, 4, 5, 0, 0, 0, 0], np.int64),
)


@pytest.fixture
def two() -> Iterator[FakeRootserve]:
    with FakeRootserve() as server:
        server.served = {"nin-orig", "nin-root-4"}
        server.of_root_4 = {"accuracy": 0.9, "trained": True, "precision": "int8"}
        yield server


class Clock:
    """Goes on when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Runs:
    """Runs that take no time: each model holds up to its limit."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.made: list[LoadOptions] = []
        self.before: Callable[[int], None] = lambda _: None

    async def __call__(self, options: LoadOptions, images: Any, stop: asyncio.Event) -> LoadResult:
        self.before(len(self.made))
        self.made.append(options)
        self.clock.now_s += options.longest_s
        limit = LIMITS[str(options.model)]
        rate = options.rate if isinstance(options.rate, float) else limit
        result = measured_of(recorder_of(options), options, interrupted=stop.is_set())
        return replace(
            result,
            requests=500,
            succeeded=500,
            throughput_requests_per_s=rate,
            p99_of_all_s=0.01 if rate <= limit else 1.0,
        )


async def choose(fake: FakeRootserve, plan: Plan, **around: Any) -> tuple[Measured, Runs]:
    clock = Clock()
    runs = Runs(clock)
    runs.before = around.pop("before", runs.before)
    connection = Connection(fake.address)
    async with AsyncClient(fake.address) as client:
        surroundings = Surroundings(run=runs, clock=clock, **around)
        return await measure(client, connection, plan, surroundings), runs


async def test_each_variant_gets_its_limit_and_its_place(two: FakeRootserve) -> None:
    told: list[str] = []
    plan = Plan(p99_s=0.05, rate=200.0, minutes=5.0)
    measured, runs = await choose(two, plan, tell=told.append)
    assert measured.failure is None
    made = measured.choice
    assert (made.complete, made.interrupted) == (True, False)
    orig, root4 = made.variants
    for variant in (orig, root4):
        limit = LIMITS[variant.name]
        assert variant.low <= limit <= variant.high
        assert (variant.high - variant.low) / 2 <= 0.1 * variant.limit
        assert variant.compute_ms == pytest.approx(1e3 * COMPUTE_S / BATCH_ROWS)
        assert variant.place == "set"
    assert (orig.accuracy, root4.accuracy) == (0.9125, 0.9)
    assert (orig.batch_rows, orig.compute_rows) == (BATCH_ROWS, BATCH_ROWS)
    assert (root4.batch_rows, root4.compute_rows) == (None, 16)
    assert (orig.weights_bytes, root4.weights_bytes) == (4 * 966_986, 700_000)
    assert "nin-root-4 (accuracy 0.9000" in made.recommendation
    # In turns, there and back again; first without a rate.
    assert [str(each.model) for each in runs.made[:4]] == [
        "nin-orig", "nin-root-4", "nin-root-4", "nin-orig",
    ]  # fmt: skip
    assert [each.rate is None for each in runs.made[:3]] == [True, True, False]
    assert told[0] == "round 1: nin-orig, 16 callers; 0 of 2 settled, 5 min 00 s left at most"


async def test_no_run_begins_that_would_end_too_late(two: FakeRootserve) -> None:
    measured, runs = await choose(two, Plan(p99_s=0.05, minutes=0.2))
    made = measured.choice
    assert not made.complete
    assert made.took_s <= 12.0
    # Both had as many runs, but for one.
    counts = [sum(each.model == name for each in runs.made) for name in LIMITS]
    assert sum(counts) == 4
    assert counts == [2, 2]
    assert {each.note for each in made.variants} == {"search not finished"}


async def test_time_that_is_too_short_for_a_run_is_no_failure(two: FakeRootserve) -> None:
    measured, runs = await choose(two, Plan(p99_s=0.05, minutes=0.01))
    assert runs.made == []
    assert "no rate was found" in measured.choice.recommendation


async def test_what_takes_longer_than_the_time_is_ended(
    two: FakeRootserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[measure.__module__], "_GRACE_S", 0.1)
    made: list[LoadOptions] = []

    async def run(options: LoadOptions, images: Any, stop: asyncio.Event) -> LoadResult:
        made.append(options)
        if len(made) == 3:
            await stop.wait()  # its answers do not come
        return await Runs(Clock())(options, images, stop)

    plan = Plan(p99_s=0.05, minutes=0.05, duration_s=0.1, warmup_s=0.0)
    async with AsyncClient(two.address) as client:
        measured = await measure(client, Connection(two.address), plan, Surroundings(run=run))
    assert measured.failure is None
    choice = measured.choice
    assert len(made) == 3
    assert (choice.complete, choice.interrupted) == (False, False)
    assert [each.callers_requests_per_s for each in choice.variants] == list(LIMITS.values())
    assert [each.steps for each in choice.variants] == [(), ()]
    assert {each.note for each in choice.variants} == {"search not finished"}


async def test_accuracies_are_measured_on_the_same_images(two: FakeRootserve) -> None:
    measured, _ = await choose(two, Plan(p99_s=0.05, data=DATA))
    for variant in measured.choice.variants:
        assert (variant.accuracy, variant.accuracy_images) == (0.6, 10)
        assert variant.accuracy_source == "10 images through the service"


async def test_one_without_trained_weights_has_no_accuracy(two: FakeRootserve) -> None:
    two.of_root_4 = {}
    measured, _ = await choose(two, Plan(p99_s=0.05, data=DATA))
    orig, root4 = measured.choice.variants
    assert (orig.place, root4.place) == ("set", None)
    assert root4.accuracy is None
    assert root4.note == "random weights: no accuracy"
    assert root4.limit is not None


async def test_one_that_fails_does_not_end_the_others(two: FakeRootserve) -> None:
    failures = [ServerError("NOT_FOUND", "no model of that name")]

    def before(number: int) -> None:
        if number == 3 and failures:
            raise failures.pop()

    measured, _ = await choose(two, Plan(p99_s=0.05), before=before)
    assert measured.failure is None
    orig, root4 = measured.choice.variants
    assert "NOT_FOUND" in str(orig.note)
    assert root4.complete


async def test_a_server_that_goes_away_leaves_what_was_measured(two: FakeRootserve) -> None:
    def before(number: int) -> None:
        if number == 3:
            raise Unreachable("nobody there")

    measured, runs = await choose(two, Plan(p99_s=0.05), before=before)
    assert isinstance(measured.failure, Unreachable)
    assert len(runs.made) == 3
    assert [len(each.steps) for each in measured.choice.variants] == [0, 1]


async def test_if_nothing_could_be_measured_the_reason_is_told(two: FakeRootserve) -> None:
    def before(_: int) -> None:
        raise ServerError("UNAVAILABLE", "shutting down")

    with pytest.raises(ServerError, match="shutting down"):
        await choose(two, Plan(p99_s=0.05), before=before)


async def test_patterns_choose(two: FakeRootserve) -> None:
    measured, _ = await choose(two, Plan(p99_s=0.05, models="*-root-*"))
    assert [each.name for each in measured.choice.variants] == ["nin-root-4"]
    # What is not served is not there to choose from.
    with pytest.raises(
        InputError, match=r"models 'nin-root-8': matches none of nin-orig, nin-root-4"
    ):
        await choose(two, Plan(p99_s=0.05, models="nin-orig,nin-root-8"))


def test_a_real_run_writes_all_files(
    rootserve: Rootserve, two: FakeRootserve, tmp_path: Path
) -> None:
    file, page = tmp_path / "choice.json", tmp_path / "choice.html"
    code, out, _ = rootserve(
        "choose", "--slo-p99-ms", 500, "--minutes", 0.3, "--json", file, "--html", page,
        "--server", two.address,
    )  # fmt: skip
    assert code == 0
    document = json.loads(file.read_text())
    assert [each["name"] for each in document["variants"]] == ["nin-orig", "nin-root-4"]
    assert all(each["callers_requests_per_s"] > 0 for each in document["variants"])
    assert document["command"].startswith("rootserve choose --slo-p99-ms 500")
    assert page.read_text().startswith("<!doctype html>")
    assert "nin-root-4" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    # The page is made again from the document.
    again = tmp_path / "again.html"
    assert rootserve("report", file, "--html", again) == (0, "", "")
    assert again.read_text() == page.read_text()
    code, _, err = rootserve("report", file, "--html", again, "--csv", tmp_path / "x.csv")
    assert code == 2
    assert "a choice has a page alone" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_measured_is_kept_when_it_is_ended(
    two: FakeRootserve, tmp_path: Path, number: signal.Signals
) -> None:
    in_the_second = threading.Event()

    def fail(request: int) -> None:
        # In the first run of the second variant.
        if two.requests[request].model_name == "nin-root-4":
            two.delay_s = 5.0
            in_the_second.set()

    two.fail = fail
    file = tmp_path / "choice.json"
    code, out, err = signalled(
        number, in_the_second.is_set,
        "choose", "--slo-p99-ms", 500, "--json", file, "--server", two.address,
    )  # fmt: skip
    assert code == 130
    assert err.endswith(
        f"rootserve: interrupted; what was measured until then is printed and in {file}\n"
    )
    assert "search not finished: nin-orig, nin-root-4" in out
    document = json.loads(file.read_text())
    assert document["interrupted"]
    orig, root4 = document["variants"]
    assert orig["callers_requests_per_s"] > 0
    assert root4["callers_requests_per_s"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing option '--slo-p99-ms'"),
        (("--slo-p99-ms", 0), "slo-p99-ms 0: expected more than 0"),
        (("--slo-p99-ms", 50, "--models", "x*"), "models 'x*': matches none of nin-orig"),
        (("--slo-p99-ms", 50, "--json", "/nowhere/c.json"), "/nowhere/c.json: cannot be written"),
        (("--slo-p99-ms", 50, "--html", "/nowhere/c.html"), "/nowhere/c.html: cannot be written"),
        (("--slo-p99-ms", 50, "--data", "/nowhere/data"), "/nowhere/data: no such file or folder"),
    ],
)
def test_bad_input_costs_no_time(
    rootserve: Rootserve, fake: FakeRootserve, arguments: tuple[object, ...], words: str
) -> None:
    code, _, err = rootserve("choose", *arguments, "--server", fake.address)
    assert (code, len(fake.requests)) == (2, 0)
    assert words in err


def test_a_server_that_refuses_everything(rootserve: Rootserve, fake: FakeRootserve) -> None:
    fake.fail = lambda _: grpc.StatusCode.INTERNAL
    code, _, err = rootserve("choose", "--slo-p99-ms", 50, "--server", fake.address)
    assert code == 3
    assert "INTERNAL" in err


def test_nobody_there(rootserve: Rootserve, nobody: str) -> None:
    code, _, err = rootserve("choose", "--slo-p99-ms", 50, "--server", nobody)
    assert code == 3
    assert "no gRPC server answers" in err


async def test_one_that_holds_no_rate_says_so(
    two: FakeRootserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "nin-orig", 0.0)
    # Its callers got an answer all the same.
    two.of_root_4 = {"accuracy": 0.9, "trained": True}

    async def run(options: LoadOptions, images: Any, stop: asyncio.Event) -> LoadResult:
        result = await Runs(Clock())(options, images, stop)
        return result if options.rate else replace(result, throughput_requests_per_s=100.0)

    async with AsyncClient(two.address) as client:
        plan = Plan(p99_s=0.05)
        measured = await measure(client, Connection(two.address), plan, Surroundings(run=run))
    orig, root4 = measured.choice.variants
    assert (orig.rate, orig.place) == (None, None)
    assert orig.note == "no rate was found that holds the objective"
    assert orig.lowest_missed is not None
    assert root4.place == "set"
