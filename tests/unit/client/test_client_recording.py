"""What counts into a load run's figures, told the times; histograms; report."""

import csv
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from rootserve.client.errors import InputError
from rootserve.client.files import check_writable
from rootserve.client.load.histogram import LatencyHistogram
from rootserve.client.load.recording import Recorder
from rootserve.client.load.report import NO_TIMES, LoadResult, Report, read_report, write_report
from rootserve.client.load.reporting import report_of
from rootserve.client.load.requests import plan_for
from rootserve.client.load.result import RunFacts, result_of
from rootserve.client.load.snapshot import snapshot_of
from rootserve.client.report.csv_rows import to_csv
from rootserve.client.stages import total_s
from rootserve.client.wire import Timeline
from tests.support.load_results import MIXED, OPTIONS, STARTED, measured, recorder_of

TIMELINE = Timeline(0.001, 0.002, 0.003, 0.007, 8, "cpu-0", "fake", "fp32")
DATA = Path(__file__).parents[2] / "data"
# What reports had not yet when the examples were written.
LATER = {"all_but_one_s", "attained", "last_answer_s", "lost_processes", "reasons"}
LATER |= {"accuracy_floor", "variants", "in_time", "accuracy_in_time"}


def to_json(result: LoadResult) -> dict[str, Any]:
    return report_of(result).to_json()


def test_window_counts_what_is_due_in_it_and_throughput_what_completes_in_it() -> None:
    recorder = recorder_of()
    for due_s, done_s in [
        (0.5, 0.9),  # warm-up
        (0.9, 1.1),  # sent in the warm-up, completed in the window
        (2.0, 2.5),
        (10.0, 12.0),  # sent in the window, completed after it
        (11.0, 11.5),  # due when the window has ended
    ]:
        recorder.succeeded_at(due_s, due_s, done_s, None)
    result = measured(recorder)
    assert result.requests == 2
    assert result.throughput_requests_per_s == pytest.approx(0.2)
    assert result.throughput_rows_per_s == pytest.approx(0.8)
    assert result.response_time_s.min == pytest.approx(0.5)
    assert result.response_time_s.max == pytest.approx(2.0)
    assert result.stages_s is None


def test_response_time_begins_when_due_and_service_time_when_sent() -> None:
    recorder = recorder_of()
    recorder.departed(2.0, 2.0005)
    recorder.departed(3.0, 3.5)
    recorder.succeeded_at(3.0, 3.5, 3.6, TIMELINE)
    result = measured(recorder)
    assert result.response_time_s.p50 == pytest.approx(0.6, rel=1e-3)
    assert result.service_time_s.p50 == pytest.approx(0.1, rel=1e-3)
    assert result.late_departures == 1
    assert result.max_lateness_s == pytest.approx(0.5)
    assert result.stages_s is not None
    assert result.stages_s["rest"] == pytest.approx(0.001)
    assert result.stages_s["outside_server"] == pytest.approx(0.093)


def test_failures_have_no_time_and_are_counted_by_code() -> None:
    recorder = recorder_of()
    recorder.failed(0.5, "INTERNAL")  # warm-up
    for code in ("UNAVAILABLE", "INTERNAL", "UNAVAILABLE"):
        recorder.failed(2.0, code)
    result = measured(recorder)
    assert result.errors == {"INTERNAL": 1, "UNAVAILABLE": 2}
    assert result.requests == 3
    assert result.response_time_s == NO_TIMES


def test_unfinished_requests_count_as_endless() -> None:
    recorder = recorder_of()
    recorder.unfinished(0.5)  # warm-up
    recorder.unfinished(6.0)
    assert measured(recorder).response_time_s == NO_TIMES
    for _ in range(9):
        recorder.succeeded_at(2.0, 2.0, 2.1, None)
    result = measured(recorder)
    assert (result.requests, result.unfinished) == (10, 1)
    times = result.response_time_s
    assert times.p50 == times.p90 == pytest.approx(0.1, rel=0.002)
    assert times.p99 is times.p999 is None
    assert result.service_time_s.p999 == pytest.approx(0.1, rel=0.002)


def test_a_request_that_never_left_was_late() -> None:
    recorder = recorder_of()
    recorder.never_sent(6.0)
    result = measured(recorder)
    assert (result.requests, result.unfinished, result.late_departures) == (1, 1, 1)
    assert result.max_lateness_s == pytest.approx(5.0)


def test_a_stop_shortens_the_window() -> None:
    recorder = recorder_of()
    recorder.succeeded_at(2.0, 2.0, 2.5, None)
    recorder.stop(3.0)
    recorder.stop(50.0)
    result = measured(recorder, interrupted=True)
    assert result.window_s == pytest.approx(2.0)
    assert result.throughput_requests_per_s == pytest.approx(0.5)


def test_a_stop_in_the_warm_up_leaves_nothing_measured() -> None:
    recorder = recorder_of()
    recorder.succeeded_at(0.2, 0.2, 0.3, None)
    recorder.stop(0.5)
    result = measured(recorder, interrupted=True)
    assert (result.requests, result.window_s, result.throughput_rows_per_s) == (0, 0.0, 0.0)


def test_snapshot_tells_warm_up_from_measuring() -> None:
    recorder = recorder_of()
    recorder.succeeded_at(0.1, 0.1, 0.2, None)
    early = snapshot_of(recorder.progress(), OPTIONS, 0.5)
    assert (early.warming_up, early.rows_per_s, early.p99_s) == (True, 8.0, None)
    recorder.succeeded_at(1.1, 1.1, 1.2, None)
    late = snapshot_of(recorder.progress(), OPTIONS, 3.0)
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
    recorder = recorder_of()
    recorder.succeeded_at(2.0, 2.0, 2.1, TIMELINE)
    report = json.loads(json.dumps(to_json(measured(recorder)), allow_nan=False))
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


def test_the_example_reports_have_the_keys_of_a_fresh_one() -> None:
    """What the page, the comparison and their tests are built on is what a run writes."""
    recorder = recorder_of()
    recorder.departed(2.0, 2.0)
    recorder.succeeded_at(2.0, 2.0, 2.1, TIMELINE)
    fresh = to_json(measured(recorder))
    single = json.loads((DATA / "load-open.json").read_text())
    sweep = json.loads((DATA / "load-sweep.json").read_text())
    assert single.keys() == sweep.keys() == fresh.keys() - LATER
    top = {"schema", "schema_version", "kind", "model", "levels", "objective", "find_max", "pairs"}
    top |= {"command", "options", "server", "client"}
    assert sweep["levels"][0].keys() == fresh.keys() - top - LATER
    for key in ("client", "options"):
        assert single[key].keys() == fresh[key].keys() - LATER
    for key in ("time_series", "by_model", "by_server", "trials"):
        assert single[key][0].keys() == fresh[key][0].keys() - LATER
    for key in ("response_time_s", "stages_by_percentile_s"):
        assert single[key].keys() == fresh[key].keys()
    assert single["stage_times_s"].keys() == fresh["stage_times_s"].keys() - {"decode"}
    assert single["stages_s"].keys() == fresh["stages_s"].keys() - {"client_wait", "decode"}
    told = (Path(__file__).parents[3] / "docs" / "load.md").read_text()
    assert [key for key in fresh if f"`{key}`" not in told] == []


def test_report_has_nulls_when_nothing_succeeded() -> None:
    report = json.loads(json.dumps(to_json(measured(recorder_of())), allow_nan=False))
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
    with pytest.raises(InputError, match="cannot be written"):
        check_writable(tmp_path / name)
    with pytest.raises(InputError, match="cannot be written"):
        write_report(report_of(measured(recorder_of())), tmp_path / name)


def test_figures_by_model_and_server_add_up() -> None:
    options = replace(MIXED, server="h:1,h:2", warmup_s=0.0, duration_s=10.0)
    plan = plan_for(options)
    recorder = Recorder(options, plan)
    for n in range(1000):
        kind = plan.kind_of(n)
        if n % 10:
            recorder.succeeded_at(n / 100, n / 100, n / 100 + 0.01, TIMELINE, kind, n % 2)
        else:
            recorder.failed(n / 100, "INTERNAL", kind, n % 2)
    recorder.never_sent(9.9, plan.kind_of(0))
    result = measured(recorder, options)
    assert result.requests == 1001
    assert sum(part.requests for part in result.by_model) == 1001
    # What was never sent was for no server yet.
    assert [part.requests for part in result.by_server] == [500, 500]
    assert [part.errors for part in result.by_server] == [{"INTERNAL": 100}, {}]
    assert [part.name for part in result.by_model] == ["a", "b"]
    rows = sum(part.throughput_rows_per_s for part in result.by_model)
    assert rows == pytest.approx(result.throughput_rows_per_s)
    expected = sum(plan.kinds[plan.kind_of(n)].rows for n in range(1000) if n % 10)
    assert result.throughput_rows_per_s == pytest.approx(expected / 10, rel=0.01)


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=100))
@settings(deadline=None)
def test_buckets_are_those_of_the_library(times: list[float]) -> None:
    theirs, mine = HdrHistogram(1, 24 * 3600 * 1_000_000, 3), LatencyHistogram()
    mine.record_all(np.array(times))
    for seconds in times:
        theirs.record_value(min(max(1, round(seconds * 1e6)), 24 * 3600 * 1_000_000))
    decoded = HdrHistogram.decode(mine.encoded().encode())
    assert decoded.get_total_count() == len(times)
    assert list(decoded.counts) == list(theirs.counts)


@given(
    st.lists(
        st.tuples(st.floats(0, 12), st.floats(0, 0.01), st.floats(0.001, 3), st.integers(0, 2)),
        max_size=60,
    )
)
@settings(deadline=None)
def test_recordings_of_two_processes_add_up_to_that_of_one(
    events: list[tuple[float, float, float, int]],
) -> None:
    one, halves = recorder_of(), [recorder_of(), recorder_of()]
    for n, (due_s, lateness_s, took_s, fate) in enumerate(events):
        for recorder in (one, halves[n % 2]):
            recorder.departed(due_s, due_s + lateness_s)
            if fate == 0:
                recorder.failed(due_s, "INTERNAL", done_s=due_s + took_s)
            elif fate == 1:
                recorder.unfinished(due_s)
            else:
                sent_s = due_s + lateness_s
                recorder.succeeded_at(due_s, sent_s, sent_s + took_s, TIMELINE)
    first, second = (pickle.loads(pickle.dumps(half.recording())) for half in halves)
    first.merge(second)
    facts = RunFacts(started_at=STARTED, end_s=11.0, interrupted=False, client_cpu_cores=0.0)
    merged, whole = (result_of(OPTIONS, each, facts) for each in (first, one.recording()))
    assert to_json(merged)["time_series"] == to_json(whole)["time_series"]
    assert merged.response_quantiles_s == whole.response_quantiles_s
    assert merged.histograms == whole.histograms
    for name in ("requests", "errors", "unfinished", "late_departures", "max_lateness_s"):
        assert getattr(merged, name) == getattr(whole, name)
    assert merged.throughput_rows_per_s == pytest.approx(whole.throughput_rows_per_s)
    assert merged.response_time_s.mean == pytest.approx(whole.response_time_s.mean)


def test_stages_of_a_percentile_add_up_to_it() -> None:
    recorder = recorder_of()
    for n in range(1000):
        queue_s = 0.1 if n % 100 == 0 else 0.001
        timeline = replace(TIMELINE, queue_s=queue_s, total_s=queue_s + 0.006)
        due_s = 1.0 + n / 200
        recorder.succeeded_at(due_s, due_s + 0.0005, due_s + 0.0005 + queue_s + 0.007, timeline)
    result = measured(recorder)
    assert result.stages_by_percentile_s is not None
    assert result.stage_times_s is not None
    p50, p999 = result.stages_by_percentile_s["p50"], result.stages_by_percentile_s["p999"]
    assert sum(p50.values()) == pytest.approx(0.0085)
    assert sum(p999.values()) == pytest.approx(0.1075)
    assert p999["queue"] == pytest.approx(0.1)
    assert p50["client_wait"] == pytest.approx(0.0005)
    assert p50["outside_server"] == pytest.approx(0.001)
    assert result.stage_times_s["queue"].p50 == pytest.approx(0.001, rel=2e-3)
    assert result.batch_rows == {8: 1000}


def test_time_series_counts_each_second() -> None:
    recorder = recorder_of()
    recorder.departed(0.5, 0.5)
    recorder.departed(1.2, 2.3)  # late, and sent in the next second
    recorder.departed(2.0, 2.0)
    recorder.succeeded_at(0.5, 0.5, 1.5, None)
    recorder.succeeded_at(1.2, 2.3, 3.4, None)
    recorder.failed(2.0, "INTERNAL", done_s=11.5)
    steps = measured(recorder).time_series
    assert [step.phase for step in steps] == ["warm-up", *["measured"] * 10, "after"]
    shown = ("due", "sent", "late", "answered", "failed", "in_flight")
    assert [[getattr(step, name) for name in shown] for step in steps[:4]] == [
        [1, 1, 0, 0, 0, 1], [1, 0, 1, 1, 0, 0], [1, 2, 0, 0, 0, 2], [0, 0, 0, 1, 0, 1],
    ]  # fmt: skip
    assert steps[3].p99_s == pytest.approx(2.2, rel=2e-3)
    assert steps[3].rows == 4
    assert steps[-1].errors == {"INTERNAL": 1}
    assert steps[-1].in_flight == 0


def test_a_long_run_has_longer_steps() -> None:
    options = replace(OPTIONS, duration_s=7200.0)
    recorder = recorder_of(options)
    recorder.succeeded_at(7000.0, 7000.0, 7000.1, None)
    result = measured(recorder, options)
    assert result.time_step_s == 13
    assert len(result.time_series) <= 600


def test_windows_are_counted_one_by_one_and_a_stable_run_shows_the_last_three() -> None:
    options = replace(OPTIONS, stable_within=0.1, max_trials=5, warmup_s=0.0, duration_s=1.0)
    recorder = recorder_of(options)
    for window, took_s in enumerate((0.5, 0.1, 0.1, 0.1)):
        for n in range(10):
            due_s = window + n / 20
            recorder.succeeded_at(due_s, due_s, due_s + took_s, None)
    recorder.stop(4.0)
    facts = RunFacts(
        started_at=STARTED, end_s=4.0, interrupted=False, client_cpu_cores=0.0, stable=True
    )
    result = result_of(options, recorder.recording(), facts)
    assert [trial.counted for trial in result.trials] == [False, True, True, True]
    assert result.window_s == pytest.approx(3.0)
    assert result.requests == 30
    assert result.response_time_s.max == pytest.approx(0.1)
    assert result.trials[0].p99_s == pytest.approx(0.5, rel=2e-3)


def test_decoding_is_a_part_of_the_computation() -> None:
    """The server tells it for batches with pictures that came as files."""
    recorder = recorder_of()
    recorder.succeeded_at(2.0, 2.0, 2.008, replace(TIMELINE, decode_s=0.002))
    result = measured(recorder)
    assert result.stages_by_percentile_s is not None
    assert result.stage_times_s is not None
    mean = result.stages_by_percentile_s["mean"]
    assert (mean["compute"], mean["decode"]) == (pytest.approx(0.003), pytest.approx(0.002))
    # What adds up to the response time is what it was, decoding being within.
    assert total_s(mean) == pytest.approx(0.008)
    assert result.stage_times_s["decode"].p50 == pytest.approx(0.002, rel=2e-3)
    rows = list(csv.DictReader(io.StringIO(to_csv(report_of(result)))))
    assert float(rows[0]["mean_decode_s"]) == pytest.approx(0.002)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    recorder = recorder_of()
    recorder.departed(2.0, 2.0)
    recorder.succeeded_at(2.0, 2.0, 2.1, replace(TIMELINE, decode_s=0.001))
    recorder.failed(3.0, "INTERNAL")
    report = report_of(measured(recorder), command="rootserve load")
    path = tmp_path / "report.json"
    write_report(report, path)
    again = read_report(path)
    assert isinstance(again, Report)
    assert json.loads(json.dumps(again.to_json())) == json.loads(json.dumps(report.to_json()))
    assert again.batch_rows == {8: 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"requests": "many"}, r"Expected `int`, got `str` - at `\$.requests`"),
        (
            {"response_time_s": {"p50": 1}},
            r"missing required field `p90` - at `\$.response_time_s`",
        ),
        ({"levels": [{}]}, r"missing required field `requests` - at `\$.levels\[0\]`"),
        ({"kind": "walk"}, r"'walk' - at `\$.kind`"),
    ],
)
def test_a_report_that_is_not_whole_says_where(change: dict[str, Any], words: str) -> None:
    document = json.loads((DATA / "load-open.json").read_text())
    with pytest.raises(InputError, match=words):
        Report.from_json(document | change)
