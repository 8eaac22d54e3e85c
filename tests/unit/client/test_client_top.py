"""`rootserve top` without a server: reading metrics, comparing two readings, drawing them."""

import math
from dataclasses import replace

import pytest
from rich.console import Console

from rootserve.client.errors import MalformedAnswer
from rootserve.client.top.rates import compare, quantile
from rootserve.client.top.sample import Histogram, ModelSample, Sample, WorkerSample, read_sample
from rootserve.client.top.screen import render

BOUNDS = (0.001, 0.01, 0.1, math.inf)


def histogram(*counts: float, total: float = 0.0) -> Histogram:
    return Histogram(BOUNDS, tuple(counts), total)


IDLE = ModelSample(
    ready=True,
    latency=histogram(0, 0, 0, 0),
    batch_rows=histogram(0, 0, 0, 0),
    answered_rows=0,
    refused=0,
    queued_rows=0,
    in_flight_rows=0,
)
FRESH = WorkerSample(device="cpu", up=True, restarts=0, busy_s=0, memory_bytes=2**20)
BEFORE = Sample(100.0, 1e9, "1.2.3", True, {"m": IDLE}, {"cpu-0": FRESH})
AFTER = Sample(
    102.0,
    1e9,
    "1.2.3",
    True,
    {
        "m": replace(
            IDLE,
            latency=histogram(0, 100, 200, 200),
            batch_rows=histogram(0, 0, 0, 50, total=400),
            answered_rows=400,
            refused=3,
            queued_rows=7,
            in_flight_rows=16,
        )
    },
    {"cpu-0": replace(FRESH, busy_s=1.5, restarts=2)},
)


@pytest.mark.parametrize(
    ("share", "before", "now", "expected"),
    [
        (0.5, histogram(0, 0, 0, 0), histogram(0, 0, 0, 0), None),
        (0.5, histogram(5, 5, 5, 5), histogram(5, 5, 5, 5), None),
        (0.5, histogram(0, 0, 0, 0), histogram(10, 10, 10, 10), 0.0005),
        (1.0, histogram(0, 0, 0, 0), histogram(10, 10, 10, 10), 0.001),
        (0.5, histogram(0, 0, 0, 0), histogram(0, 100, 200, 200), 0.01),
        (0.75, histogram(0, 0, 0, 0), histogram(0, 100, 200, 200), 0.055),
        # Only what came since counts.
        (0.5, histogram(90, 90, 90, 90), histogram(90, 90, 100, 100), 0.055),
        # Nothing is known beyond the last bound.
        (0.99, histogram(0, 0, 0, 0), histogram(0, 0, 50, 100), 0.1),
        # Other buckets, as after an upgrade: as if there had been no reading before.
        (0.5, Histogram((1.0, math.inf), (3, 3), 1.0), histogram(0, 100, 200, 200), 0.01),
    ],
)
def test_quantiles_are_interpolated_in_what_came_between(
    share: float, before: Histogram, now: Histogram, expected: float | None
) -> None:
    found = quantile(share, before, now)
    assert found == (None if expected is None else pytest.approx(expected))


def test_two_readings_make_rates() -> None:
    view = compare(BEFORE, AFTER)
    assert view.interval_s == 2.0
    (model,) = view.models
    assert (model.requests_per_s, model.rows_per_s, model.refused_per_s) == (100, 200, 1.5)
    assert (model.batch_rows, model.queued_rows, model.in_flight_rows) == (8.0, 7, 16)
    assert model.p50_s == pytest.approx(0.01)
    assert model.p99_s == pytest.approx(0.0982)
    (worker,) = view.workers
    assert (worker.busy, worker.restarts, worker.memory_bytes) == (0.75, 2, 2**20)


def test_an_idle_interval_has_rates_of_zero_and_no_latency() -> None:
    (model,) = compare(BEFORE, replace(BEFORE, at_s=101.0)).models
    assert (model.requests_per_s, model.rows_per_s, model.refused_per_s) == (0, 0, 0)
    assert (model.p50_s, model.p99_s, model.batch_rows) == (None, None, None)


@pytest.mark.parametrize(
    "before",
    [
        None,
        replace(AFTER, at_s=99.0, started_s=5e8),  # another process
        replace(AFTER, at_s=99.0),  # the counters went back
        AFTER,  # the same instant
    ],
    ids=["first", "restarted", "counters reset", "no time passed"],
)
def test_without_a_reading_to_compare_with_there_are_no_rates(before: Sample | None) -> None:
    now = replace(AFTER, models=BEFORE.models) if before is not AFTER else AFTER
    now = replace(now, at_s=102.0)
    view = compare(before, now)
    assert view.interval_s is None
    (model,) = view.models
    assert model.requests_per_s is model.p50_s is model.batch_rows is None
    assert view.workers[0].busy is None
    assert view.workers[0].restarts == 2


def test_a_model_that_was_loaded_in_between_has_no_rates_yet() -> None:
    now = replace(AFTER, models={**AFTER.models, "new": AFTER.models["m"]})
    old, new = compare(BEFORE, now).models
    assert old.requests_per_s == 100
    assert new.requests_per_s is new.p99_s is None
    assert new.queued_rows == 7


def test_a_worker_is_busy_for_the_whole_time_at_most() -> None:
    now = replace(AFTER, workers={"cpu-0": replace(FRESH, busy_s=9.0)})
    assert compare(BEFORE, now).workers[0].busy == 1.0


EXPOSITION = """\
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.7e9
# TYPE rootserve_build_info gauge
rootserve_build_info{version="1.2.3"} 1.0
# TYPE rootserve_serving gauge
rootserve_serving 1.0
# TYPE rootserve_model_ready gauge
rootserve_model_ready{model="m"} 1.0
# TYPE rootserve_request_seconds histogram
rootserve_request_seconds_bucket{le="0.1",model="m",outcome="ok"} 3.0
rootserve_request_seconds_bucket{le="+Inf",model="m",outcome="ok"} 4.0
rootserve_request_seconds_sum{model="m",outcome="ok"} 0.5
rootserve_request_seconds_count{model="m",outcome="ok"} 4.0
rootserve_request_seconds_bucket{le="0.1",model="m",outcome="queue_full"} 9.0
rootserve_request_seconds_bucket{le="+Inf",model="m",outcome="queue_full"} 9.0
# TYPE rootserve_refusals_total counter
rootserve_refusals_total{model="m",reason="queue_full"} 9.0
rootserve_refusals_total{model="m",reason="draining"} 1.0
# TYPE rootserve_worker_up gauge
rootserve_worker_up{worker="cpu-0",device="cpu"} 0.0
"""


def test_an_exposition_is_read() -> None:
    sample = read_sample(EXPOSITION, 7.0)
    assert (sample.at_s, sample.started_s) == (7.0, 1.7e9)
    assert (sample.version, sample.serving) == ("1.2.3", True)
    model = sample.models["m"]
    assert model.latency == Histogram((0.1, math.inf), (3.0, 4.0), 0.5)
    assert (model.refused, model.answered_rows) == (10.0, 0.0)
    assert sample.workers == {"cpu-0": WorkerSample("cpu", False, 0.0, 0.0, None)}


@pytest.mark.parametrize(
    "text",
    ["", "<html>not found</html>", "up 1\n", 'rootserve_build_info{version="1"} one\n'],
)
def test_what_is_not_rootserves_metrics_is_refused(text: str) -> None:
    with pytest.raises(MalformedAnswer, match="metrics"):
        read_sample(text, 0.0)


def drawn(width: int = 80, **options: object) -> str:
    screen = Console(width=width, record=True, file=None, force_terminal=False, highlight=False)
    with screen.capture() as captured:
        view = compare(BEFORE, AFTER)
        screen.print(render("h:1", view, now_s=1e9 + 7200, **options))  # type: ignore[arg-type]
    return captured.get()


def test_the_view_has_the_figures_in_80_columns() -> None:
    text = drawn()
    assert "rootserve h:1  serving  version 1.2.3, up 2.0 h" in text
    assert "estimates" in text
    lines = text.splitlines()
    (model,) = [line for line in lines if line.startswith("m ")]
    assert model.split() == [
        "m", "100", "200", "10.0", "ms", "98.2", "ms", "8.0", "7", "16", "1.5",
    ]  # fmt: skip
    (worker,) = [line for line in lines if line.startswith("cpu-0")]
    assert worker.split() == ["cpu-0", "cpu", "up", "75%", "2", "1", "MiB"]
    assert max(map(len, lines)) <= 80


def test_trouble_is_told_above_the_last_view() -> None:
    text = drawn(trouble="no metrics at http://h:2/metrics: Connection refused")
    assert "no metrics at http://h:2/metrics: Connection refused; trying again" in text
    assert "cpu-0" in text
    assert "estimates" not in text
