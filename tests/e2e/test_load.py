"""Load runs of real processes against a real server whose engine is told how long to take."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rootserve.client.errors import ServerError
from rootserve.client.load import LoadOptions, Snapshot, run_load
from tests.support.server_process import (
    ServerProcess,
    command_image,
    infer_request,
    running_server,
    wait_until,
)

MODEL = "nin-orig"
ARGUMENTS = ("--engine", "fake", "--models", f"{MODEL},nin-root-4", "--device", "cpu")
# Each image takes the fake engine 10 ms.
SERVICE = command_image(b"sleep\x01")
STALL_S = 1.0
STALL = command_image(b"sleep\x64")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server(*ARGUMENTS) as started:
        yield started


def command(address: str, *arguments: object) -> list[str]:
    words = ["load", "--model", MODEL, "--server", address, *map(str, arguments)]
    return [sys.executable, "-m", "rootserve.client", *words]


def rootserve(server: ServerProcess, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = command(server.address, *arguments)
    return subprocess.run(words, capture_output=True, text=True, timeout=90, check=False)


def report_of(path: Path) -> dict[str, object]:
    report = json.loads(path.read_text())
    assert report["schema"] == "rootserve.load/1"
    return report


async def test_a_stall_shows_in_the_response_time_and_not_in_what_is_timed_from_sending(
    server: ServerProcess,
) -> None:
    """One second in which nothing is answered: every request due in it waits."""

    def stall() -> None:
        server.stub.ModelInfer(infer_request(MODEL, STALL), timeout=30)

    def stall_midway() -> Callable[[Snapshot], None]:
        thread = threading.Thread(target=stall)

        def watch(snapshot: Snapshot) -> None:
            if snapshot.elapsed_s > 2.0 and thread.ident is None:
                thread.start()

        return watch

    options = {
        "model": MODEL, "server": server.address, "warmup_s": 0.5, "duration_s": 5.0,
    }  # fmt: skip
    # One at a time, as a client does that waits for each answer before it sends again. A quarter of
    # what the server can do, so that it catches up after the stall on a busy machine as well.
    opened = await run_load(
        LoadOptions(**options, rate=25.0, distribution="constant", max_in_flight=1),
        SERVICE,
        watch=stall_midway(),
    )
    assert opened.errors == {}
    p99_s = opened.response_time_s.p99
    # None: so many were never answered that the p99 is endless.
    assert p99_s is None or p99_s > 0.5 * STALL_S
    assert opened.response_time_s.max > 0.5 * STALL_S
    # Timed from the sending, one request of 125 was slow.
    assert opened.service_time_s.max > 0.5 * STALL_S
    assert opened.service_time_s.p99 < 0.5 * STALL_S
    # A fifth was due while it stood still; the stages tell that they waited to be sent.
    assert opened.stages_by_percentile_s is not None
    mean = opened.stages_by_percentile_s["mean"]
    assert mean["client_wait"] > mean["compute"]
    assert max(step.max_s or 0 for step in opened.time_series) > 0.5 * STALL_S

    closed = await run_load(LoadOptions(**options, concurrency=1), SERVICE, watch=stall_midway())
    # The one caller waited once; its percentiles do not know how many others would have.
    assert closed.response_time_s.max > 0.5 * STALL_S
    assert closed.response_time_s.p99 < 0.5 * STALL_S


def test_a_closed_loop_is_labelled_as_what_it_is(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = rootserve(server, "-c", 2, "-d", 0.5, "--warmup", 0, "--json", path)
    assert done.returncode == 0
    assert "closed loop: while the server is slow nobody sends" in done.stdout
    assert report_of(path)["loop"] == "closed"


def test_several_processes_send_one_schedule(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = rootserve(
        server, "-r", 50, "--distribution", "constant", "-d", 2, "--warmup", 1,
        "--processes", 2, "--json", path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = report_of(path)
    assert report["requests"] == report["succeeded"] == 100
    assert sum(step["due"] for step in report["time_series"]) == 150
    assert sum(report["batch_rows"].values()) == 100
    assert report["client"]["processes"] == 2


def test_streams_models_servers_rows_and_deadlines(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    both = f"{server.address},localhost:{server.address.rpartition(':')[2]}"
    done = rootserve(
        server, "-m", "nin-root-4=3", "-r", 60, "-d", 2, "--warmup", 0, "--rows", "1=3,4=1",
        "--deadline-ms", "1000,2000", "--priority", "1,3", "--streaming", "--server", both,
        "--json", path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = report_of(path)
    assert report["errors"] == {}
    assert report["options"]["rows"] == "1=3,4=1"
    orig, root = report["by_model"]
    assert (orig["name"], root["name"]) == (MODEL, "nin-root-4")
    assert root["requests"] > orig["requests"] > 0
    first, second = report["by_server"]
    assert abs(first["requests"] - second["requests"]) <= 1
    assert report["throughput_rows_per_s"] > 1.2 * report["throughput_requests_per_s"]


async def test_a_refusal_on_a_stream_has_its_code(server: ServerProcess) -> None:
    settings = {"server": server.address, "concurrency": 4, "streaming": True, "warmup_s": 0.0}
    # Who waits behind another's 10 ms loses a deadline of 5 ms.
    result = await run_load(
        LoadOptions(model=MODEL, deadline_s=0.005, duration_s=1.0, **settings), SERVICE
    )
    assert set(result.errors) == {"DEADLINE_EXCEEDED"}
    with pytest.raises(ServerError, match="NOT_FOUND"):
        await run_load(LoadOptions(model="nin-col-2", duration_s=1.0, **settings), SERVICE)


def test_a_trace_is_replayed(server: ServerProcess, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace.csv", tmp_path / "report.json"
    lines = [f"{n / 20},{'nin-root-4' if n % 2 else ''},{n % 3 + 1}" for n in range(20)]
    trace.write_text("at_s,model,rows\n" + "\n".join(lines) + "\n")
    done = rootserve(server, "--replay", trace, "--json", path)
    assert done.returncode == 0, done.stderr
    report = report_of(path)
    assert report["requests"] == 20
    assert [part["requests"] for part in report["by_model"]] == [10, 10]
    assert report["rate"] == str(trace)


def test_the_highest_rate_is_found_with_its_uncertainty(
    server: ServerProcess, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    done = rootserve(
        server, "--find-max", "--slo-p99-ms", 500, "-r", 200, "-d", 0.4, "--warmup", 0.1,
        "--json", path,
    )  # fmt: skip
    report = report_of(path)
    found = report["find_max"]
    assert (done.returncode == 0) is (found["rate"] is not None)
    assert found["text"] in " ".join(done.stdout.split())
    assert len(report["levels"]) == len(found["steps"])
    assert all(level["requests"] >= 50 for level in report["levels"])
    assert found["limit"] is None or found["low"] < found["limit"] < found["high"]
    held = {step["rate"] for step in found["steps"] if step["held"]}
    assert found["rate"] is None or found["rate"] in held


def test_pairs_take_turns(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = rootserve(
        server, "-c", 2, "-d", 0.4, "--warmup", 0.1, "--versus", "nin-root-4", "--rounds", 2,
        "--json", path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = report_of(path)
    assert [level["label"] for level in report["levels"]] == ["A: nin-orig", "B: nin-root-4"] * 2
    ratio = report["pairs"]["ratios"]["throughput_rows_per_s"]
    assert ratio["low"] < ratio["ratio"] < ratio["high"]
    again = subprocess.run(
        [sys.executable, "-m", "rootserve.client", "compare", str(path), str(path), "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["runs"][0]["figures"][0]["ratio"]["ratio"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_sweep_keeps_what_was_measured(
    server: ServerProcess, tmp_path: Path, processes: int, number: signal.Signals
) -> None:
    path = tmp_path / "report.json"
    words = command(
        server.address, "-c", "2,4,8", "-d", 1, "--warmup", 0, "--json", path,
        "--processes", processes, "-d", 2,
    )  # fmt: skip
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        before = requests_served(server)
        wait_until(lambda: requests_served(server) > before + 20)
        time.sleep(2.5)  # into the second level
        # As a terminal does it: to every process of the group.
        os.killpg(running.pid, number)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "warning: interrupted after " in out
    assert "Traceback" not in err
    report = report_of(path)
    assert report["requests"] > 0
    assert report["interrupted"] is True
    assert 1 <= len(report["levels"]) <= 3


def requests_served(server: ServerProcess) -> int:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
        text = page.read().decode()
    lines = [line for line in text.splitlines() if line.startswith("rootserve_rows_total")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def test_an_interruption_before_anything_was_sent_still_reports(tmp_path: Path) -> None:
    """A server that takes the connection and says nothing."""
    path = tmp_path / "report.json"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        words = command(f"127.0.0.1:{silent.getsockname()[1]}", "-c", 1, "--json", path)
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            connection, _ = silent.accept()
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
        connection.close()
    assert running.returncode == 130, err
    assert "interrupted: 0.0 s of 10 s were measured" in out
    report = report_of(path)
    assert (report["requests"], report["interrupted"]) == (0, True)


def test_a_server_that_dies_in_the_middle_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with running_server(*ARGUMENTS) as server:
        words = command(server.address, "-r", 40, "-d", 4, "--warmup", 0, "--json", path)
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            wait_until(lambda: requests_served(server) > 40)
            server.process.send_signal(signal.SIGTERM)
            out, err = running.communicate(timeout=60)
    assert running.returncode == 3
    (line,) = err.splitlines()
    assert f"UNAVAILABLE: the server at {server.address} went away: its last answer came" in line
    assert "the server gave no answer after" in " ".join(out.split())
    report = report_of(path)
    assert report["succeeded"] > 20
    assert report["errors"]["UNAVAILABLE"] > 20
    assert report["requests"] == report["succeeded"] + sum(report["errors"].values())


def test_a_report_that_cannot_be_written_any_more_is_saved_elsewhere(
    server: ServerProcess, tmp_path: Path
) -> None:
    folder, rescue = tmp_path / "reports", tmp_path / "tmp"
    folder.mkdir()
    rescue.mkdir()
    words = command(
        server.address, "-c", 1, "-d", 2, "--warmup", 0, "--json", folder / "report.json"
    )
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(rescue)},
    ) as running:  # fmt: skip
        before = requests_served(server)
        wait_until(lambda: requests_served(server) > before + 5)
        folder.rmdir()
        _, err = running.communicate(timeout=60)
    assert running.returncode == 2
    assert "report.json: cannot be written" in err
    (saved,) = rescue.glob("rootserve-load-*.json")
    assert str(saved) in err
    assert report_of(saved)["requests"] > 0


async def test_windows_end_when_they_are_stable(server: ServerProcess) -> None:
    options = LoadOptions(
        model=MODEL, server=server.address, concurrency=1, warmup_s=0.2, duration_s=0.5,
        stable_within=1.0, max_trials=6,
    )  # fmt: skip
    result = await run_load(options, np.repeat(SERVICE, 2, axis=0))
    assert 3 <= len(result.trials) <= 6
    counted = [trial for trial in result.trials if trial.counted]
    assert len(counted) == (3 if result.stable else len(result.trials))
    assert result.window_s == pytest.approx(0.5 * len(counted))
