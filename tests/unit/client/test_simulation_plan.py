"""`rootserve simulate` and `rootserve plan`: what they tell, write and refuse."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rootserve.client.cli import app
from rootserve.client.errors import InputError, RootserveError
from rootserve.client.simulation import planning
from rootserve.client.simulation.planning import SHARE, Need, plan
from tests.support.simulated import KIND, document, service


@pytest.fixture
def latency(tmp_path: Path) -> Path:
    path = tmp_path / "latency.json"
    path.write_text(json.dumps(document()))
    return path


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_REQUESTS", 500)
    monkeypatch.setattr(planning, "_SEARCH", 3)


def rootserve(*arguments: object) -> int:
    return int(app([str(each) for each in arguments], standalone_mode=False) or 0)


def test_a_plan_names_the_fewest_workers_that_hold_and_one_fewer_that_do_not() -> None:
    # One worker holds the rate, but of the most accurate it computes only 248 rows a second.
    made = plan(service(), Need(rate=300.0, p99_s=0.1, accuracy=0.895), {})
    short, holding = made.options
    assert (short.holds, holding.holds) == (False, True)
    assert holding.workers == short.workers + 1 >= 2
    assert holding.summary.attainment >= SHARE
    assert (short.summary.mean_accuracy or 0.0) < 0.895 <= (holding.summary.mean_accuracy or 0.0)
    assert holding.margin is not None
    assert holding.margin > 0
    assert f"{holding.workers} workers on cpu" in made.recommendation


def test_more_accuracy_takes_more_workers() -> None:
    least = plan(service(), Need(rate=300.0, p99_s=0.1, accuracy=0.71), {}).options[-1]
    accurate = plan(service(), Need(rate=300.0, p99_s=0.1, accuracy=0.895), {}).options[-1]
    floor = plan(service(), Need(rate=300.0, p99_s=0.1, floor=0.9), {}).options[-1]
    assert least.holds
    assert accurate.holds
    assert floor.holds
    assert accurate.workers > least.workers
    assert set(floor.summary.rows_by_variant) == {"slow"}


def test_what_no_number_of_workers_holds_is_said() -> None:
    made = plan(service(), Need(rate=100.0, p99_s=0.001), {})
    assert not made.options
    assert "no number of workers" in made.recommendation
    few = plan(service(), Need(rate=5000.0, p99_s=0.1), {KIND: (1, 2)})
    assert [(option.workers, option.holds) for option in few.options] == [(2, False)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"accuracy": 0.95},
            r"accuracy 0\.95: expected at most 0\.9, the highest there is \(slow\)",
        ),
        ({"floor": 0.95}, r"accuracy-floor 0\.95: expected at most 0\.9"),
        ({"rows": 64}, "rows 64: expected at most 32"),
    ],
)
def test_what_is_not_to_be_had_is_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(service(), replace(Need(rate=10.0, p99_s=0.1), **change), {})


@pytest.mark.parametrize("change", [{"rate": 0.0}, {"p99_s": -1.0}, {"accuracy": 2.0}, {"rows": 0}])
def test_a_need_that_is_none_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        replace(Need(rate=10.0, p99_s=0.1), **change)


def test_simulate_prints_a_row_for_each_policy_and_writes_json_and_picture(
    latency: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, drawn = tmp_path / "run.json", tmp_path / "run.png"
    wanted = [
        "-r",
        "50x1,900x1",
        "--deadline-ms",
        "50=1,200=1",
        "--policy",
        "rootserve,static slow",
    ]
    assert (
        rootserve("simulate", "--latency", latency, *wanted, "--json", written, "--figure", drawn)
        == 0
    )
    told = capsys.readouterr().out
    assert "rootserve " in told
    assert "static slow " in told
    found = json.loads(written.read_text())
    assert found["schema"] == "rootserve.simulation/1"
    ours, slow = (run["summary"] for run in found["runs"])
    assert ours["offered"] == slow["offered"] > 800
    assert ours["attainment"] > slow["attainment"]
    assert sum(each["offered"] for each in found["runs"][0]["series"]) == ours["offered"]
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_simulate_replays_a_trace(latency: Path, tmp_path: Path) -> None:
    trace, written = tmp_path / "trace.csv", tmp_path / "run.json"
    trace.write_text("at_s,rows,deadline_ms,accuracy_floor\n0,1,100,0.85\n0.5,2,,\n")
    assert rootserve("simulate", "--latency", latency, "--replay", trace, "--json", written) == 0
    (run,) = json.loads(written.read_text())["runs"]
    assert run["summary"]["offered"] == 2
    assert run["summary"]["attainment"] == 1.0


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (["--rate", "1e7", "--p99-ms", "100"], "workers or more, and at most 256 are tried."),
        (["--rate", "10", "--p99-ms", "0.01"], "ms for the fastest batch there is."),
    ],
)
def test_what_no_number_of_workers_can_hold_is_not_simulated(
    latency: Path, capsys: pytest.CaptureFixture[str], wanted: list[str], why: str
) -> None:
    assert rootserve("plan", "--latency", latency, *wanted) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("no number of workers that was tried holds ")
    assert told.endswith(why)


def test_plan_gives_exit_code_1_when_nothing_holds(
    latency: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, drawn = tmp_path / "plan.json", tmp_path / "plan.svg"
    wanted = ["--latency", latency, "--rate", "3000", "--p99-ms", "100"]
    outputs = ["--json", written, "--figure", drawn]
    assert rootserve("plan", *wanted, "--workers", "cpu=1..2", *outputs) == 1
    assert "no number of workers that was tried holds 3000 requests/s" in " ".join(
        capsys.readouterr().out.split()
    )
    assert json.loads(written.read_text())["options"][0]["holds"] is False
    assert "<svg" in drawn.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "--latency", "none.json", "-r", "1"], "none.json: cannot be read"),
        (["simulate", "--latency", "LATENCY"], "expected one of --rate and --replay"),
        (["simulate", "--latency", "LATENCY", "-r", "much"], "rate much: expected"),
        (["simulate", "--latency", "LATENCY", "-r", "0"], "rate 0: expected"),
        (["simulate", "--latency", "LATENCY", "-r", "9", "-d", "0"], "duration 0: expected"),
        (
            ["simulate", "--latency", "LATENCY", "-r", "9", "--cv2", "-1"],
            "coefficient of variation of -1",
        ),
        (
            ["simulate", "--latency", "LATENCY", "-r", "9", "--rows", "64"],
            "requests of 64 rows: expected",
        ),
        (
            ["simulate", "--latency", "LATENCY", "-r", "9", "--policy", "best"],
            "policy best: expected one",
        ),
        (
            ["simulate", "--latency", "LATENCY", "-r", "9", "--workers", "gpu=1"],
            "workers gpu: nothing",
        ),
        (
            ["simulate", "--latency", "LATENCY", "-r", "9", "--workers", "few"],
            "workers few: expected N",
        ),
        (
            ["simulate", "--latency", "LATENCY", "-r", "9", "--accuracy-floor", "2"],
            "floor of 2 came",
        ),
        (["plan", "--latency", "LATENCY", "--rate", "-5", "--p99-ms", "50"], "rate -5: expected"),
        (
            ["plan", "--latency", "LATENCY", "--rate", "5", "--p99-ms", "50", "--workers", "3..2"],
            r"workers cpu=3\.\.2: expected",
        ),
    ],
)
def test_what_cannot_be_used_is_named(arguments: list[str], words: str, latency: Path) -> None:
    with pytest.raises(RootserveError, match=words):
        rootserve(*(latency if each == "LATENCY" else each for each in arguments))
