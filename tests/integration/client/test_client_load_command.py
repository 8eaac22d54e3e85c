"""`rootserve load` against a fake server: its report, its exit codes, and how it is interrupted."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tests.integration.client.conftest import Run, signalled
from tests.integration.client.fake_rootserve import FakeRootserve
from tests.support.plain import assert_plain

Rootserve = Callable[..., tuple[int, str, str]]
QUICK = ("--duration", 0.3, "--warmup", 0.05, "--model", "nin-orig")


def test_load_prints_and_writes_its_report(
    rootserve: Rootserve, fake: FakeRootserve, tmp_path: Path, sample_path: Path
) -> None:
    file = tmp_path / "report.json"
    code, out, err = rootserve(
        "load", *QUICK, "-c", 2, "--rows", 3, "--data", sample_path, "--json", file,
        "--slo-p99-ms", 60_000, "--server", fake.address,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "objective met" in out
    assert_plain("\n".join(line for line in out.splitlines() if str(file) not in line))
    report = json.loads(file.read_text())
    assert report["model"] == "nin-orig"
    assert report["requests"] > 0
    assert report["errors"] == {}
    assert report["throughput_rows_per_s"] > 0
    for kind in ("response_time_s", "service_time_s"):
        assert report[kind]["p50"] <= report[kind]["p90"] <= report[kind]["p99"]
        assert report[kind]["p99"] <= report[kind]["p999"] <= 60
    assert report["options"]["rows"] == 3
    assert report["options"]["concurrency"] == 2
    assert report["server"]["version"] == "9.8.7"
    assert (report["server"]["engine"], report["server"]["precision"]) == ("fake", "fp32")
    assert report["server"]["workers"][0]["name"] == "cpu-0"


def test_load_open_loop(rootserve: Rootserve, fake: FakeRootserve) -> None:
    code, out, _ = rootserve(
        "load", *QUICK, "--rate", 50, "--distribution", "constant", "--server", fake.address
    )
    assert code == 0
    assert "open loop, 50 requests/s (constant), 1 row per request" in out


def test_a_missed_objective_is_exit_code_1(rootserve: Rootserve, fake: FakeRootserve) -> None:
    fake.delay_s = 0.05
    code, out, _ = rootserve(
        "load", *QUICK, "-c", 1, "--slo-p99-ms", 2, "--server", fake.address
    )  # fmt: skip
    assert code == 1
    assert "objective missed: 99% of the requests were answered within " in out


def test_an_objective_is_missed_when_nothing_succeeded(
    rootserve: Rootserve, fake: FakeRootserve, tmp_path: Path
) -> None:
    fake.fail = lambda _: grpc.StatusCode.INTERNAL
    file = tmp_path / "report.json"
    code, out, _ = rootserve(
        "load", *QUICK, "-c", 1, "--slo-p99-ms", 2, "--json", file, "--server", fake.address
    )
    assert code == 1
    assert "no request succeeded" in out
    assert "INTERNAL" in out
    report = json.loads(file.read_text())
    assert set(report["response_time_s"].values()) == {None}
    assert report["stages_s"] is None
    assert report["errors"] == {"INTERNAL": report["requests"]}


def test_a_load_without_one_success_is_exit_code_3(
    rootserve: Rootserve, fake: FakeRootserve
) -> None:
    fake.fail = lambda _: grpc.StatusCode.UNAVAILABLE
    code, out, err = rootserve("load", *QUICK, "-c", 1, "--server", fake.address)
    assert code == 3
    assert "throughput" in out
    assert err.startswith("rootserve: UNAVAILABLE: none of the ")


def interrupted(fake: FakeRootserve, *arguments: object) -> Run:
    """What becomes of a command that gets Ctrl-C once it has sent 20 requests."""
    return signalled(
        signal.SIGINT, lambda: len(fake.requests) >= 20, *arguments, "--server", fake.address
    )


def test_ctrl_c_ends_the_load_and_still_reports(fake: FakeRootserve, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    code, out, _ = interrupted(
        fake, "load", "-m", "nin-orig", "-c", 1, "--warmup", 0, "--duration", 60, "--json", file
    )
    assert code == 130
    assert "interrupted:" in out
    report = json.loads(file.read_text())
    assert report["interrupted"] is True
    assert report["requests"] >= 18


@pytest.mark.parametrize("objective", [(), ("--slo-p99-ms", 50)])
def test_a_load_that_sends_nothing_is_no_success(
    rootserve: Rootserve, fake: FakeRootserve, objective: tuple[object, ...]
) -> None:
    code, out, err = rootserve(
        "load", "-m", "nin-orig", "-r", 0.2, "--distribution", "constant", "-d", 0.3,
        "--warmup", 0.1, *objective, "--server", fake.address,
    )  # fmt: skip
    assert code == 2
    assert "warning: no request was due in the 0.3 s that were measured" in out
    assert "expected a longer --duration, or more load" in err


def test_an_interrupted_search_ends_as_interrupted(fake: FakeRootserve) -> None:
    """Ctrl-C in its first run, before any request was measured."""
    code, out, err = interrupted(
        fake, "load", "-m", "nin-orig", "--find-max", "--slo-p99-ms", 50, "-d", 60, "--warmup", 60
    )
    assert (code, err) == (130, "")
    assert "the search was interrupted before it could begin" in out


def test_the_batch_limit_is_in_reports_and_compared(
    rootserve: Rootserve, fake: FakeRootserve, tmp_path: Path
) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, limit in zip(files, (8, 16), strict=True):
        fake.batch_limits["nin-orig"] = limit
        page = file.with_suffix(".html")
        code, out, _ = rootserve(
            "load", *QUICK, "-c", 1, "--json", file, "--html", page, "--server", fake.address
        )
        assert code == 0
        assert f"largest batches, as the server measured: {limit} rows of nin-orig" in out
        assert f"none above {limit} rows of nin-orig" in page.read_text()
        assert json.loads(file.read_text())["server"]["batch_limits"] == {"nin-orig": limit}
    code, out, _ = rootserve("compare", *files)
    assert code == 0
    differs = " ".join(out.split()).partition("differs: largest batches")[2]
    assert differs.endswith("8 rows of nin-orig and 16 rows of nin-orig")


def test_sides_with_other_batch_limits_are_warned_of(
    rootserve: Rootserve, fake: FakeRootserve, tmp_path: Path
) -> None:
    fake.served = {"nin-orig", "nin-root-4"}
    fake.batch_limits["nin-root-4"] = 2
    page = tmp_path / "page.html"
    code, out, err = rootserve(
        "load", *QUICK, "-c", 1, "--versus", "nin-root-4", "--rounds", 1, "--html", page,
        "--server", fake.address,
    )  # fmt: skip
    assert code == 0
    told = "8 rows of nin-orig, 2 rows of nin-root-4"
    assert told in " ".join(out.split())
    assert told in page.read_text()
    # Off a terminal each run of a series is told once it is over.
    first, second = err.splitlines()
    assert first.startswith("run 1: nin-orig, 1 caller: ")
    assert second.startswith("run 2: nin-root-4, 1 caller: ")
    assert "p99 of all" in second
