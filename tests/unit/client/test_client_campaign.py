"""Sweeps, searches and pairs with runs that are made up; statistics and comparison by table."""

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootserve.client.errors import InputError, ServerError
from rootserve.client.load import LatencySummary, LoadOptions, LoadResult
from rootserve.client.load.campaign import Campaign
from rootserve.client.load.comparison import compare, differences, unlike_limits
from rootserve.client.load.objective import Goals
from rootserve.client.load.report import Pairs, Report, Trial
from rootserve.client.load.reporting import report_of
from rootserve.client.load.search import Search
from rootserve.client.load.stability import is_stable
from rootserve.client.load.statistics import paired_ratio, student_t, unpaired_ratio

OPTIONS = LoadOptions(model="a", rate=100.0)
EXAMPLES = Path(__file__).parents[2] / "data"


def run_of(options: LoadOptions, *, rows_per_s: float = 100.0, p99_s: float = 0.01) -> LoadResult:
    times = LatencySummary(p99_s / 2, p99_s, p99_s, p99_s, 0.001, 0.002, p99_s)
    return LoadResult(
        label=options.label, model=str(options.model), loop=options.loop,
        concurrency=options.concurrency, rate=options.rate, options=options.to_json(),
        started_at="2026-01-01T00:00:00.000+00:00", window_s=10.0, requests=1000, succeeded=1000,
        errors={}, unfinished=0, outcomes={"OK": 1000}, offered_requests_per_s=rows_per_s,
        throughput_rows_per_s=rows_per_s, throughput_requests_per_s=rows_per_s,
        response_time_s=times, service_time_s=times, p99_of_all_s=p99_s, all_but_one_s=p99_s,
        late_departures=0, client_cpu_cores=0.1,
    )  # fmt: skip


def campaign_of(kind: str, measure: Callable[[LoadOptions], LoadResult]) -> Campaign:
    async def run(options: LoadOptions) -> LoadResult:
        return measure(options)

    return Campaign(kind, run, asyncio.Event())


@settings(deadline=None)
@given(
    limit=st.floats(1, 50_000),
    start=st.floats(0.1, 100_000),
    precision=st.sampled_from([0.02, 0.05, 0.2]),
)
def test_the_search_closes_in_on_the_limit(limit: float, start: float, precision: float) -> None:
    search = Search(start, precision=precision, most_runs=100)
    while (rate := search.next_rate()) is not None:
        search.tell(rate, held=rate <= limit)
    found = search.found()
    assert found.complete
    assert found.low is not None
    assert found.high is not None
    assert found.low <= limit <= found.high
    assert found.uncertainty is not None
    assert found.uncertainty <= precision
    assert found.rate is not None
    assert found.lowest_missed is not None
    assert found.rate <= limit < found.lowest_missed


def test_a_search_survives_runs_that_miss_by_chance() -> None:
    """One run in twenty misses whatever its rate: no search may end far below the true limit."""
    random = np.random.default_rng(1)
    founds = []
    for _ in range(100):
        search = Search(float(random.uniform(300, 3000)))
        while (rate := search.next_rate()) is not None:
            search.tell(rate, held=rate <= 1000 and random.random() > 0.05)
        founds.append(search.found())
    assert all(found.complete for found in founds)
    assert sum(found.low <= 1000 <= found.high for found in founds) >= 95
    assert all(found.limit == pytest.approx(1000, rel=0.05) for found in founds)
    assert sum(found.runs for found in founds) / len(founds) <= 18


def test_a_miss_by_chance_is_tried_again() -> None:
    search = Search(100)
    search.tell(100, held=False)
    tried = []
    while (rate := search.next_rate()) is not None:
        tried.append(rate)
        search.tell(rate, held=rate < 400)
    assert max(tried) > 390
    assert search.found().limit == pytest.approx(400, rel=0.05)


def test_the_interval_holds_the_limit_where_runs_near_it_go_either_way() -> None:
    """A machine whose runs hold at 5 % above the limit in a quarter of the cases."""
    random = np.random.default_rng(2)
    founds = []
    for _ in range(100):
        search = Search(float(random.uniform(300, 3000)))
        while (rate := search.next_rate()) is not None:
            holds = 1 / (1 + math.exp((math.log(rate / 1000)) / 0.045))
            search.tell(rate, held=random.random() < holds)
        founds.append(search.found())
    assert sum(found.low <= 1000 <= found.high for found in founds) >= 88


def test_a_search_that_reckons_with_stray_misses_is_not_misled_by_them() -> None:
    """A machine on which one run of five misses whatever its rate."""
    random = np.random.default_rng(3)
    founds = []
    for _ in range(50):
        search = Search(float(random.uniform(500, 1500)), precision=0.1, stray_miss=0.2)
        while (rate := search.next_rate()) is not None:
            search.tell(rate, held=rate < 1000 and random.random() > 0.2)
        founds.append(search.found())
    assert sum(found.low <= 1000 <= found.high for found in founds) >= 45


def test_a_search_says_what_it_found() -> None:
    search = Search(100, most_runs=4)
    for rate, held in ((100, True), (200, False), (150, None), (140, True)):
        search.tell(rate, held=held)
    found = search.found()
    assert found.rate == 140
    assert found.lowest_missed == 200
    text = found.text("p99 within 50 ms")
    assert f"holds up to {found.limit:.4g} requests/s ± {found.uncertainty:.1%}" in text
    assert f"95 % interval {found.low:.4g} to {found.high:.4g}, from 4 runs" in text
    assert "The search was not finished after 4 runs" in text


def test_a_search_without_an_answer_ends() -> None:
    never, always = Search(100), Search(100, most_runs=30)
    while (rate := never.next_rate()) is not None:
        never.tell(rate, held=False)
    assert never.found().rate is None
    assert "no rate was found that holds p99 within 50 ms" in never.found().text("p99 within 50 ms")
    while (rate := always.next_rate()) is not None:
        always.tell(rate, held=True)
    assert always.found().rate == 100_000
    assert always.found().complete
    assert "no rate was found that misses it" in always.found().text("p99 within 50 ms")
    limited = Search(100, most_runs=3)
    while (rate := limited.next_rate()) is not None:
        limited.tell(rate, held=True)
    assert not limited.found().complete
    assert "not finished" in limited.found().text("p99 within 50 ms")


async def test_find_max_begins_with_callers_when_no_rate_is_given() -> None:
    def measure(options: LoadOptions) -> LoadResult:
        if options.concurrency:
            return run_of(options, rows_per_s=1000)
        assert isinstance(options.rate, float)
        return run_of(options, p99_s=0.01 if options.rate <= 930 else 1.0)

    campaign = campaign_of("find_max", measure)
    await campaign.find_max(OPTIONS, Goals(0.05), 0.05, None)
    assert campaign.runs[0].concurrency == 16
    assert campaign.steps[0].rate == 700
    assert campaign.found is not None
    assert campaign.found.rate is not None
    assert campaign.found.rate <= 930 < campaign.found.lowest_missed
    assert campaign.found.low <= 930 <= campaign.found.high
    assert campaign.head.rate == campaign.found.rate
    report = report_of(campaign.head, campaign=campaign).to_json()
    assert report["find_max"]["rate"] == campaign.found.rate
    assert report["find_max"]["low"] <= 930 <= report["find_max"]["high"]
    assert report["rate"] == campaign.found.rate
    json.dumps(report, allow_nan=False)


async def test_find_max_makes_longer_runs_at_low_rates() -> None:
    """Enough requests for a verdict, or none: the p99 of twenty is the slowest one."""

    def measure(options: LoadOptions) -> LoadResult:
        assert isinstance(options.rate, float)
        requests = round(options.rate * options.duration_s)
        p99_s = 0.01 if options.rate <= 4 else 1.0
        return replace(run_of(options, p99_s=p99_s), requests=requests)

    campaign = campaign_of("find_max", measure)
    await campaign.find_max(OPTIONS, Goals(0.05), 0.05, 2.0)
    assert all(run.requests >= 149 for run in campaign.runs)
    assert campaign.found is not None
    assert campaign.found.low <= 4 <= campaign.found.high
    assert max(run.options["duration_s"] for run in campaign.runs) <= 100


async def test_find_max_does_not_count_runs_that_tell_nothing() -> None:
    campaign = campaign_of("find_max", lambda options: replace(run_of(options), requests=50))
    await campaign.find_max(OPTIONS, Goals(0.05), 0.05, 20.0)
    assert {step.held for step in campaign.steps} == {None}
    assert campaign.found is not None
    assert campaign.found.rate is None
    assert not campaign.found.complete
    assert len(campaign.runs) <= 30


async def test_find_max_that_is_stopped_in_its_first_run_is_no_failure() -> None:
    stop = asyncio.Event()

    async def run(options: LoadOptions) -> LoadResult:
        stop.set()
        return replace(run_of(options, rows_per_s=0), interrupted=True, requests=0, succeeded=0)

    campaign = Campaign("find_max", run, stop)
    await campaign.find_max(OPTIONS, Goals(0.05), 0.05, None)
    assert campaign.interrupted
    assert campaign.found is None
    assert campaign.head.interrupted


async def test_find_max_wants_an_answer_to_begin_with() -> None:
    campaign = campaign_of("find_max", lambda options: run_of(options, rows_per_s=0))
    with pytest.raises(ServerError, match="none of 1,000 requests succeeded"):
        await campaign.find_max(OPTIONS, Goals(0.05), 0.05, None)
    assert len(campaign.runs) == 1


async def test_a_sweep_stands_for_its_best_level() -> None:
    rates = {1: 50.0, 2: 90.0, 4: 80.0}
    campaign = campaign_of(
        "sweep", lambda options: run_of(options, rows_per_s=rates[options.concurrency])
    )
    await campaign.sweep([replace(OPTIONS, rate=None, concurrency=callers) for callers in rates])
    report = report_of(campaign.head, campaign=campaign).to_json()
    assert report["kind"] == "sweep"
    assert report["throughput_rows_per_s"] == 90
    assert [level["concurrency"] for level in report["levels"]] == [1, 2, 4]


async def test_a_stop_ends_a_sweep_and_keeps_what_was_measured() -> None:
    stop = asyncio.Event()

    async def run(options: LoadOptions) -> LoadResult:
        if options.rate == 200:
            stop.set()
        return replace(run_of(options), interrupted=stop.is_set())

    campaign = Campaign("sweep", run, stop)
    await campaign.sweep([replace(OPTIONS, rate=rate) for rate in (100.0, 200.0, 300.0)])
    assert [each.label for each in campaign.runs] == ["100/s", "200/s"]
    assert campaign.interrupted


async def test_pairs_take_turns() -> None:
    speeds = {"a": iter([100, 110, 90]), "b": iter([150, 165, 135])}
    campaign = campaign_of(
        "pairs", lambda options: run_of(options, rows_per_s=next(speeds[str(options.model)]))
    )
    await campaign.pairs(OPTIONS, replace(OPTIONS, model="b"), rounds=3)
    assert [each.label for each in campaign.runs] == ["A: a", "B: b"] * 3
    ratio = campaign.ratios()["throughput_rows_per_s"]
    assert ratio is not None
    assert ratio.ratio == pytest.approx(1.5)
    # The machine's speed varied by a fifth, the ratio not at all.
    assert ratio.low == ratio.high == pytest.approx(1.5)
    assert ratio.differs
    pairs = report_of(campaign.head, campaign=campaign).to_json()["pairs"]
    assert (pairs["a"], pairs["b"], pairs["rounds"]) == ("A: a", "B: b", 3)
    assert pairs["ratios"]["p99_s"]["ratio"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], None),
        ([(None, 1.0), (1.0, None), (0.0, 1.0)], None),
        ([(2.0, 3.0)], (1.5, None, None)),
        # logs 0 and ln 4: mean ln 2, s.e. ln 2, t(1) = 12.706
        ([(1, 1), (1, 4)], (2.0, 2 * math.exp(-12.706 * math.log(2)), 2 * math.exp(12.706 * math.log(2)))),
    ],
)  # fmt: skip
def test_paired_ratios(
    pairs: list[tuple[float | None, float | None]], expected: tuple[float, ...] | None
) -> None:
    ratio = paired_ratio(pairs)
    if expected is None or ratio is None:
        assert ratio is expected
        return
    assert ratio.ratio == pytest.approx(expected[0])
    assert (ratio.low, ratio.high) == (pytest.approx(expected[1]), pytest.approx(expected[2]))


def test_student_t_is_never_too_small() -> None:
    # 97.5 % quantiles as tabulated in every textbook.
    for degrees, quantile in ((1, 12.706), (4, 2.776), (11, 2.201), (29, 2.045), (1000, 1.962)):
        assert student_t(degrees) >= quantile
    assert student_t(4) == 2.776


def test_unpaired_ratios_widen_with_what_varies() -> None:
    steady, shaky = [100.0, 101, 99, 100, 100, 101, 99, 100], [100.0, 150, 60, 120, 80, 140, 70, 90]
    narrow = unpaired_ratio(100, 110, steady, steady)
    wide = unpaired_ratio(100, 110, steady, shaky)
    assert narrow is not None
    assert wide is not None
    assert narrow.differs
    assert not wide.differs
    assert unpaired_ratio(100, 110, steady, []) is not None
    assert unpaired_ratio(None, 110, steady, steady) is None
    alone = unpaired_ratio(100, 110, steady[:2], steady)
    assert alone is not None
    assert alone.low is None


@pytest.mark.parametrize("seconds", [11, 18, 19, 29])
def test_every_second_of_a_run_counts(seconds: int) -> None:
    steady = [100.0, 101.0] * 20
    calm = unpaired_ratio(100, 100, steady[:seconds], steady[:seconds])
    last_second = unpaired_ratio(100, 100, [*steady[: seconds - 1], 500.0], steady[:seconds])
    assert calm is not None
    assert last_second is not None
    assert last_second.high > 1.2 > calm.high


@pytest.mark.parametrize(
    ("windows", "stable"),
    [
        ([(100, 0.1)] * 3, True),
        ([(100, 0.1)] * 2, False),
        ([(100, 0.1), (95, 0.1), (105, 0.1)], True),
        ([(100, 0.1), (80, 0.1), (105, 0.1)], False),
        ([(100, 0.1), (100, 0.15), (100, 0.1)], False),
        ([(10, 9.0), (100, 0.1), (100, 0.1), (100, 0.1)], True),
        ([(100, 0.1), (100, None), (100, 0.1)], False),
        ([(0, None)] * 3, False),
    ],
)
def test_stability(windows: list[tuple[float, float | None]], stable: bool) -> None:
    trials = [Trial(n, n + 1, rate, p99_s) for n, (rate, p99_s) in enumerate(windows)]
    assert is_stable(trials, 0.1) is stable


def example(name: str, **changes: object) -> Report:
    return Report.from_json(json.loads((EXAMPLES / name).read_text()) | changes)


def test_a_report_compared_with_itself_shows_no_difference() -> None:
    report = example("load-open.json")
    (comparison,) = compare(report, report)
    assert [figure.name for figure in comparison.figures] == [
        "rows/s", "requests/s", "p50", "p90", "p99", "p99.9",
    ]  # fmt: skip
    for figure in comparison.figures:
        assert figure.ratio is not None
        assert figure.ratio.ratio == 1
        assert not figure.ratio.differs
    assert comparison.figures[0].ratio.low is not None
    assert differences(report, report) == []


def test_sweeps_are_compared_level_by_level() -> None:
    sweep = example("load-sweep.json")
    shorter = replace(sweep, levels=sweep.levels[2:4])
    assert len(compare(sweep, shorter)) == 2
    other = replace(sweep, levels=[replace(sweep.levels[0], label="other")])
    with pytest.raises(InputError, match="no level in common"):
        compare(sweep, other)
    assert compare(sweep, example("load-open.json"))[0].label.endswith(" and 300/s")


def test_a_missing_interval_is_explained() -> None:
    report = example("load-open.json")
    (told,) = compare(report, report)
    assert told.no_interval is None
    short = replace(report, time_series=[
        step for n, step in enumerate(report.time_series) if step.phase != "measured" or n < 6
    ])  # fmt: skip
    measured = sum(step.phase == "measured" for step in short.time_series)
    assert measured == 4
    (comparison,) = compare(report, short)
    assert comparison.figures[0].ratio.low is None
    assert comparison.no_interval == (
        "run B has 2 whole seconds between its first and its last, and 3 are needed: "
        "measure 5 s or longer"
    )
    bare = replace(report, time_series=())
    assert "report A has no time series" in compare(bare, report)[0].no_interval


def test_what_else_differs_is_told() -> None:
    report = example("load-open.json")
    other = replace(
        report,
        options={**report.options, "rows": 8},
        server={**report.server, "cpu": "Abacus"},
    )
    told = differences(report, other)
    assert told == ["option rows: 1 and 8", f"server cpu: {report.server['cpu']} and Abacus"]


def test_sides_with_other_batch_limits_are_warned_of() -> None:
    report = example("load-open.json")

    def limited(**limits: int) -> Report:
        return replace(report, server={**report.server, "batch_limits": limits})

    assert differences(limited(a=8), limited(a=8)) == []
    # An earlier version tells none; different models with the same limit are alike.
    assert differences(report, limited(a=8)) == []
    assert differences(limited(a=8), limited(b=8)) == []
    assert differences(limited(a=8, c=4), limited(a=8)) == []
    told = "largest batches, by which a part of the ratio may come about:"
    assert differences(limited(a=8), limited(a=16)) == [f"{told} 8 rows of a and 16 rows of a"]
    assert differences(limited(a=1), limited(b=16)) == [f"{told} 1 row of a and 16 rows of b"]


def test_pairs_with_other_batch_limits_are_warned_of() -> None:
    report = example("load-open.json")
    pairs = Pairs("A", "B", 1, {})

    def limited(pairs: Pairs | None, **limits: int) -> Report:
        return replace(report, pairs=pairs, server={**report.server, "batch_limits": limits})

    assert unlike_limits(limited(pairs, a=8, b=8)) is None
    assert unlike_limits(limited(None, a=8, b=16)) is None
    assert unlike_limits(report) is None
    assert "8 rows of a, 16 rows of b" in str(unlike_limits(limited(pairs, a=8, b=16)))
