"""What counts into a load run's figures, told the times; histograms; report; objective."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import InputError
from client.load import LatencySummary, LoadOptions, LoadResult
from client.load.histogram import LatencyHistogram
from client.load.objective import judge
from client.load.recording import Recorder
from client.load.report import check_writable, to_json, write
from client.load.requests import images_needed, serialized_requests
from client.wire import Timeline

OPTIONS = LoadOptions(model="nin-orig", concurrency=2, rows=4, warmup_s=1.0, duration_s=10.0)
TIMELINE = Timeline(0.001, 0.002, 0.003, 0.007, 8, "cpu-0", "fake", "fp32")
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def result_of(recorder: Recorder, options: LoadOptions = OPTIONS, **changes: bool) -> LoadResult:
    settings = {"interrupted": False} | changes
    return recorder.result(options, STARTED, client_cpu_cores=0.25, **settings)


def test_window_counts_what_is_due_in_it_and_throughput_what_completes_in_it() -> None:
    recorder = Recorder(OPTIONS)
    for due_s, done_s in [
        (0.5, 0.9),  # warm-up
        (0.9, 1.1),  # sent in the warm-up, completed in the window
        (2.0, 2.5),
        (10.0, 12.0),  # sent in the window, completed after it
        (11.0, 11.5),  # due when the window has ended
    ]:
        recorder.succeeded_at(due_s, due_s, done_s, None)
    result = result_of(recorder)
    assert result.requests == 2
    assert result.throughput_requests_per_s == pytest.approx(0.2)
    assert result.throughput_rows_per_s == pytest.approx(0.8)
    assert result.response_time.min == pytest.approx(0.5)
    assert result.response_time.max == pytest.approx(2.0)
    assert result.stages is None


def test_response_time_begins_when_due_and_service_time_when_sent() -> None:
    recorder = Recorder(OPTIONS)
    recorder.departed(2.0, 2.0005)
    recorder.departed(3.0, 3.5)
    recorder.succeeded_at(3.0, 3.5, 3.6, TIMELINE)
    result = result_of(recorder)
    assert result.response_time.p50 == pytest.approx(0.6, rel=1e-3)
    assert result.service_time.p50 == pytest.approx(0.1, rel=1e-3)
    assert result.late_departures == 1
    assert result.max_lateness_s == pytest.approx(0.5)
    assert result.stages is not None
    assert result.stages.rest_s == pytest.approx(0.001)
    assert result.stages.outside_server_s == pytest.approx(0.093)


def test_failures_have_no_time_and_are_counted_by_code() -> None:
    recorder = Recorder(OPTIONS)
    recorder.failed(0.5, "INTERNAL")  # warm-up
    for code in ("UNAVAILABLE", "INTERNAL", "UNAVAILABLE"):
        recorder.failed(2.0, code)
    result = result_of(recorder)
    assert result.errors == {"INTERNAL": 1, "UNAVAILABLE": 2}
    assert result.requests == 3
    assert result.response_time == LatencySummary()


def test_unfinished_requests_count_as_endless() -> None:
    recorder = Recorder(OPTIONS)
    recorder.unfinished(0.5)  # warm-up
    recorder.unfinished(6.0)
    assert result_of(recorder).response_time == LatencySummary()
    for _ in range(9):
        recorder.succeeded_at(2.0, 2.0, 2.1, None)
    result = result_of(recorder)
    assert (result.requests, result.unfinished) == (10, 1)
    times = result.response_time
    assert times.p50 == times.p90 == pytest.approx(0.1, rel=0.002)
    assert times.p99 is times.p999 is None
    assert result.service_time.p999 == pytest.approx(0.1, rel=0.002)


def test_a_request_that_never_left_was_late() -> None:
    recorder = Recorder(OPTIONS)
    recorder.never_sent(6.0)
    result = result_of(recorder)
    assert (result.requests, result.unfinished, result.late_departures) == (1, 1, 1)
    assert result.max_lateness_s == pytest.approx(5.0)


def test_a_stop_shortens_the_window() -> None:
    recorder = Recorder(OPTIONS)
    recorder.succeeded_at(2.0, 2.0, 2.5, None)
    recorder.stop(3.0)
    recorder.stop(50.0)
    result = result_of(recorder, interrupted=True)
    assert result.window_s == pytest.approx(2.0)
    assert result.throughput_requests_per_s == pytest.approx(0.5)


def test_a_stop_in_the_warm_up_leaves_nothing_measured() -> None:
    recorder = Recorder(OPTIONS)
    recorder.succeeded_at(0.2, 0.2, 0.3, None)
    recorder.stop(0.5)
    result = result_of(recorder, interrupted=True)
    assert (result.requests, result.window_s, result.throughput_rows_per_s) == (0, 0.0, 0.0)


def test_snapshot_tells_warm_up_from_measuring() -> None:
    recorder = Recorder(OPTIONS)
    recorder.succeeded_at(0.1, 0.1, 0.2, None)
    early = recorder.snapshot(0.5)
    assert (early.warming_up, early.rows_per_s, early.p99_s) == (True, 8.0, None)
    recorder.succeeded_at(1.1, 1.1, 1.2, None)
    late = recorder.snapshot(3.0)
    assert (late.warming_up, late.rows_per_s, late.requests) == (False, 2.0, 1)


@given(st.lists(st.floats(1e-6, 3600), min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_are_within_a_thousandth_of_the_nearest_rank(
    times: list[float], share: float
) -> None:
    histogram = LatencyHistogram()
    for seconds in times:
        histogram.record(seconds)
    rank = max(1, int(np.ceil(share * len(times))))
    exact = sorted(times)[rank - 1]
    # The clock of the histogram ticks in microseconds.
    assert histogram.quantile(share) == pytest.approx(exact, rel=1.1e-3, abs=1.1e-6)
    summary = histogram.summary()
    assert summary.min == min(times)
    assert summary.max == max(times)
    assert summary.mean == pytest.approx(sum(times) / len(times))


def test_times_beyond_the_histogram_are_kept_at_its_ends() -> None:
    histogram = LatencyHistogram()
    histogram.record(0.0)
    histogram.record(1e9)
    assert histogram.count == 2
    assert histogram.quantile(0.5) == pytest.approx(1e-6)
    assert histogram.quantile(1.0) == pytest.approx(24 * 3600, rel=2e-3)


def test_report_has_the_keys_that_scripts_read() -> None:
    recorder = Recorder(OPTIONS)
    recorder.succeeded_at(2.0, 2.0, 2.1, TIMELINE)
    report = json.loads(json.dumps(to_json(result_of(recorder)), allow_nan=False))
    assert {
        "model", "requests", "errors", "throughput_rows_per_s", "response_time_s",
        "service_time_s", "options", "server", "schema_version", "started_at", "client",
    } <= report.keys()  # fmt: skip
    assert {"p50", "p90", "p99", "p999"} <= report["response_time_s"].keys()
    assert report["options"]["loop"] == "closed"
    assert report["options"]["rows"] == 4
    assert report["started_at"] == "2026-01-02T03:04:05.000+00:00"
    assert report["stages_s"]["queue"] == pytest.approx(0.001)
    assert report["mean_batch_rows"] == 8
    assert report["server"]["engine"] is None


def test_report_has_nulls_when_nothing_succeeded() -> None:
    report = json.loads(json.dumps(to_json(result_of(Recorder(OPTIONS))), allow_nan=False))
    assert set(report["response_time_s"].values()) == {None}
    assert set(report["service_time_s"].values()) == {None}
    assert report["stages_s"] is None


def test_check_writable_leaves_no_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []
    kept = tmp_path / "kept.json"
    kept.write_text("{}")
    check_writable(kept)
    assert kept.read_text() == "{}"


@pytest.mark.parametrize("name", [".", "missing/report.json"])
def test_check_writable_says_why_not(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="the report cannot be written there"):
        check_writable(tmp_path / name)
    with pytest.raises(InputError, match="the report cannot be written"):
        write({}, tmp_path / name)


def judged(*done_after_s: float, failed: int = 0, p99_s: float) -> tuple[bool, str]:
    recorder = Recorder(OPTIONS)
    for seconds in done_after_s:
        recorder.succeeded_at(2.0, 2.0, 2.0 + seconds, None)
    for _ in range(failed):
        recorder.failed(2.0, "INTERNAL")
    verdict = judge(result_of(recorder), p99_s)
    return verdict.met, verdict.text


def test_objective_met_and_missed_tell_by_how_much() -> None:
    assert judged(0.010, p99_s=0.02) == (
        True,
        "objective met: 99% of the requests were answered within 10.000 ms, 10 ms (50.0%) below 20 ms",
    )
    assert judged(0.025, p99_s=0.02) == (
        False,
        "objective missed: 99% of the requests were answered within 25.000 ms, 5 ms (25.0%) above 20 ms",
    )


def test_objective_is_missed_by_failures_however_fast_the_rest() -> None:
    assert judged(p99_s=1.0)[0] is False
    assert judged(*[0.01] * 100, failed=1, p99_s=1.0)[0] is True
    met, text = judged(*[0.01] * 90, failed=10, p99_s=1.0)
    assert not met
    assert "10.0% of the requests got no answer" in text


def test_objective_counts_what_got_no_answer_among_the_hundred() -> None:
    """One failure and one slow answer in a hundred: 98 in time are not 99."""
    assert judged(*[0.01] * 98, 5.0, failed=1, p99_s=1.0)[0] is False
    assert judged(*[0.01] * 99, 5.0, p99_s=1.0)[0] is True
    recorder = Recorder(OPTIONS)
    recorder.succeeded_at(2.0, 2.0, 2.01, None)
    recorder.unfinished(9.9)
    assert judge(result_of(recorder), 1.0).met is False


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"concurrency": None}, "either concurrency"),
        ({"rate": 5.0}, "either concurrency"),
        ({"concurrency": 0}, "concurrency 0"),
        ({"concurrency": None, "rate": float("nan")}, "rate nan"),
        ({"concurrency": None, "rate": 1e6}, "requests per second"),
        ({"duration_s": 0.0}, "duration 0.0"),
        ({"duration_s": float("inf")}, "duration inf"),
        ({"warmup_s": -1.0}, "warm-up -1.0"),
        ({"rows": 0}, "rows 0"),
        ({"seed": -1}, "seed -1"),
        ({"deadline_s": 0.0}, "deadline 0.0"),
        ({"timeout_s": 0.0}, "timeout 0.0"),
        ({"priority": -1}, "priority -1"),
        ({"max_in_flight": 0}, "max-in-flight 0"),
        ({"distribution": "normal"}, "poisson or constant"),
        ({"server": "nowhere"}, "HOST:PORT"),
    ],
)
def test_options_name_what_is_out_of_range(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LoadOptions(**{"model": "nin-orig", "concurrency": 1} | changes)


def test_the_pool_stays_within_memory() -> None:
    assert images_needed(2, 3 * 32 * 32) == 128
    assert images_needed(256, 3 * 224 * 224) < 4 * 256
    pool = serialized_requests(OPTIONS, np.zeros((3, 3, 32, 32), np.uint8))
    assert len(pool) == 64
    assert all(4 * 3 * 32 * 32 < len(message) < 4 * 3 * 32 * 32 + 200 for message in pool)


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (3, 32, 32), (2, 1, 32, 32)])
def test_the_pool_wants_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \[N, 3, H, W\]"):
        serialized_requests(OPTIONS, np.zeros(shape, np.uint8))
