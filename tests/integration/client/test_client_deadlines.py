"""Load runs with deadlines against a fake server that chooses variants and refuses what it cannot promise."""

import json
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from rootserve.client.load import LoadOptions, Mix, run_load
from tests.integration.client.conftest import Run
from tests.integration.client.fake_rootserve import FakeRootserve

# Of what the fake catalogue says of it.
ACCURACY = 0.9125
NEVER_S, ALWAYS_S = 0.001, 60.0


def options(fake: FakeRootserve, **changes: object) -> LoadOptions:
    settings = {"duration_s": 0.4, "warmup_s": 0.0, "timeout_s": 80.0, "concurrency": 2} | changes
    return LoadOptions(model="nin-orig", server=fake.address, **settings)


@pytest.mark.parametrize("processes", [1, 2])
async def test_what_answers_tell_of_their_variant_is_counted(
    fake: FakeRootserve, processes: int
) -> None:
    fake.chosen = ("nin-root-4", 0.8)
    fake.delay_s = 0.01
    result = await run_load(options(fake, deadline_s=ALWAYS_S, processes=processes))
    assert result.attained is not None
    assert result.attained.variants == {"nin-root-4": result.succeeded}
    assert result.attained.attainment == 1.0
    assert result.attained.accuracy_goodput == pytest.approx(0.8)
    assert sum(one.variants["nin-root-4"] for one in result.time_series) == result.succeeded


async def test_a_model_that_tells_no_accuracy_has_that_of_the_catalogue(
    fake: FakeRootserve,
) -> None:
    result = await run_load(options(fake, deadline_s=ALWAYS_S))
    assert result.attained is not None
    assert result.attained.accuracy_goodput == pytest.approx(ACCURACY)
    fake.has_catalog = False
    from_now_on = await run_load(
        options(fake, deadline_s=ALWAYS_S), np.zeros((1, 3, 32, 32), np.uint8)
    )
    assert from_now_on.attained is not None
    assert from_now_on.attained.attainment == 1.0
    assert from_now_on.attained.accuracy_goodput is None


async def test_answers_that_take_longer_than_their_deadline_are_late(fake: FakeRootserve) -> None:
    fake.delay_s = 0.02
    deadlines = Mix((NEVER_S, ALWAYS_S), (1.0, 1.0))
    result = await run_load(options(fake, deadline_s=deadlines, concurrency=8))
    assert result.attained is not None
    sent = [request.parameters["deadline_ms"].int64_param for request in fake.requests[1:]]
    assert set(sent) == {1, 60_000}
    assert result.attained.late + result.attained.in_time == result.succeeded
    assert 0 < result.attained.late < result.succeeded
    # The fake's own clock says that it took less.
    assert result.attained.promises_broken == 0
    assert result.attained.attainment_from_arrival == 1.0


async def test_refusals_are_counted_by_the_reason_they_tell(fake: FakeRootserve) -> None:
    fake.fail = lambda n: grpc.StatusCode.RESOURCE_EXHAUSTED if n % 2 else None
    fake.reason = "DEADLINE_INFEASIBLE"
    fake.delay_s = 0.01
    result = await run_load(options(fake, deadline_s=ALWAYS_S))
    assert result.attained is not None
    refused = result.errors["RESOURCE_EXHAUSTED"]
    assert result.reasons == {"DEADLINE_INFEASIBLE": refused}
    assert result.attained.attainment == pytest.approx(1 - refused / result.requests)
    assert result.attained.promises_broken == 0


async def test_each_choice_is_tried_before_the_load(fake: FakeRootserve) -> None:
    floors = Mix((0.0, 0.5, 0.9), (1.0, 1.0, 1.0))
    await run_load(options(fake, accuracy_floor=floors, variants=("nin-orig",)))
    tried = {request.parameters["accuracy_floor"].double_param for request in fake.requests[:3]}
    assert tried == {0.0, 0.5, 0.9}
    assert {each.parameters["variants"].string_param for each in fake.requests} == {"nin-orig"}


@pytest.mark.parametrize(
    ("deadline_ms", "code", "words"),
    [(60_000, 0, "objective met: 100.00%"), (1, 1, "objective missed: 0.00%")],
)
def test_the_attainment_decides_the_exit_code(
    fake: FakeRootserve,
    rootserve: Callable[..., Run],
    tmp_path: Path,
    deadline_ms: int,
    code: int,
    words: str,
) -> None:
    fake.delay_s = 0.005
    path = tmp_path / "report.json"
    found = rootserve(
        "load", "--server", fake.address, "-m", "nin-orig", "-c", 16, "-d", 3, "--warmup", 0,
        "--deadline-ms", deadline_ms, "--slo-attainment", 0.9, "--json", path, "--timeout-s", 80,
    )  # fmt: skip
    assert found.code == code, found.err
    assert words in found.out
    report = json.loads(path.read_text())
    assert report["objective"]["attainment"] == 0.9
    assert report["objective"]["met"] is (code == 0)
    assert report["attained"]["attainment"] == (1.0 if code == 0 else 0.0)


def test_two_reports_are_compared_by_what_they_kept(
    fake: FakeRootserve, rootserve: Callable[..., Run], tmp_path: Path
) -> None:
    paths = []
    for variant, accuracy in (("nin-orig", 0.9), ("nin-root-4", 0.8)):
        fake.chosen = (variant, accuracy)
        paths.append(tmp_path / f"{variant}.json")
        ran = rootserve(
            "load", "--server", fake.address, "-m", "nin-orig", "-c", 2, "-d", 0.5, "--warmup", 0,
            "--deadline-ms", 60_000, "--timeout-s", 80, "--json", paths[-1],
        )  # fmt: skip
        assert ran.code == 0, ran.err
    lines = {" ".join(line.split()) for line in rootserve("compare", *paths).out.splitlines()}
    assert any(line.startswith("attainment 100.00% 100.00% 1.000") for line in lines)
    assert any(line.startswith("goodput 0.9000 0.8000 0.889") for line in lines)
    assert any(line.startswith("by nin-orig 100.00% 0.00%") for line in lines)
    assert any(line.startswith("promises broken 0 0") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--accuracy-floor", "high"), "--accuracy-floor high: 'high' is no number"),
        (("--accuracy-floor", "1.5"), "accuracy-floor 1.5: expected 0 to 1"),
        (("--accuracy-floor", "nan"), "--accuracy-floor nan: 'nan' is no number"),
        (("--deadline-ms", "-5"), "deadline -0.005: expected 0.001 to 86,400 seconds"),
        (("--variants", "a,,b"), "--variants a,,b: expected names, each once"),
        (("--slo-attainment", "0.9"), "--slo-attainment without --deadline-ms"),
        (("--deadline-ms", "5", "--slo-attainment", "0"), "--slo-attainment 0: expected a share"),
    ],
)
def test_bad_words_are_named(
    fake: FakeRootserve, rootserve: Callable[..., Run], arguments: tuple[str, ...], words: str
) -> None:
    command = ("load", "--server", fake.address, "-m", "nin-orig", "-c", 1)
    found = rootserve(*command, *arguments)
    assert found.code == 2
    assert words in " ".join(found.err.split())
    assert fake.requests == []
