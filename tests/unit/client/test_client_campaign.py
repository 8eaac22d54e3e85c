"""Sweeps, searches and pairs with runs that are made up; statistics and comparison by table."""

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import InputError, ServerError
from client.load import LatencySummary, LoadOptions, LoadResult
from client.load.campaign import Campaign
from client.load.comparison import compare, differences
from client.load.report import to_json
from client.load.result import Trial
from client.load.search import Search
from client.load.stability import is_stable
from client.load.statistics import paired_ratio, student_t, unpaired_ratio

OPTIONS = LoadOptions(model="a", rate=100.0)
EXAMPLES = Path(__file__).parents[2] / "data"


def run_of(options: LoadOptions, *, rows_per_s: float = 100.0, p99_s: float = 0.01) -> LoadResult:
    times = LatencySummary(p99_s / 2, p99_s, p99_s, p99_s, 0.001, 0.002, p99_s)
    return LoadResult(
        options=options, started_at=datetime(2026, 1, 1, tzinfo=UTC), window_s=10.0,
        interrupted=False, requests=1000, succeeded=1000, errors={}, unfinished=0,
        throughput_rows_per_s=rows_per_s, throughput_requests_per_s=rows_per_s,
        response_time=times, p99_of_all_s=p99_s, service_time=times, late_departures=0,
        max_lateness_s=0.0, stages=None, client_cpu_cores=0.1, label=options.label,
    )  # fmt: skip


def campaign_of(kind: str, measure: Callable[[LoadOptions], LoadResult]) -> Campaign:
    async def run(options: LoadOptions) -> LoadResult:
        return measure(options)

    return Campaign(kind, run, asyncio.Event())


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
    assert found.rate is not None
    assert found.lowest_missed is not None
    assert found.rate <= limit < found.lowest_missed
    assert found.lowest_missed / found.rate <= (1 + precision) * (1 + 1e-3)
    assert found.runs >= 2
    assert found.uncertainty is not None
    assert found.uncertainty <= precision / 2 * (1 + 1e-2)


def test_a_rate_that_misses_when_it_is_tried_again_is_given_up() -> None:
    search = Search(100, precision=0.5)
    search.tell(100, held=True)
    search.tell(200, held=False)
    search.tell(141.421, held=True)
    assert search.next_rate() == 141.421  # once is not enough
    search.tell(141.421, held=False)
    assert search.found().rate == 100
    assert search.found().lowest_missed == 141.421
    assert search.next_rate() == 100
    search.tell(100, held=True)
    assert search.next_rate() is None
    assert "100 requests/s (in 2 of 2 runs) and is missed at 141.4" in search.found().text(0.05)
    assert "± 17.2%" in search.found().text(0.05)


def test_a_search_tells_when_runs_contradict_each_other() -> None:
    search = Search(100)
    for rate, held in ((50, True), (100, True), (200, True), (100, False)):
        search.tell(rate, held=held)
    assert "Another run held at 200: the machine's speed varies" in search.found().text(0.05)


def test_a_search_without_an_answer_ends() -> None:
    never, always = Search(100), Search(100, most_runs=30)
    while (rate := never.next_rate()) is not None:
        never.tell(rate, held=False)
    assert never.found().rate is None
    assert "no rate was found that holds p99 within 50 ms" in never.found().text(0.05)
    while (rate := always.next_rate()) is not None:
        always.tell(rate, held=True)
    assert always.found().rate == 100_000
    assert "no rate was found that misses it" in always.found().text(0.05)
    limited = Search(100, most_runs=3)
    while (rate := limited.next_rate()) is not None:
        limited.tell(rate, held=True)
    assert not limited.found().complete
    assert "not finished" in limited.found().text(0.05)


async def test_find_max_begins_with_callers_when_no_rate_is_given() -> None:
    def measure(options: LoadOptions) -> LoadResult:
        if options.concurrency:
            return run_of(options, rows_per_s=1000)
        assert isinstance(options.rate, float)
        return run_of(options, p99_s=0.01 if options.rate <= 930 else 1.0)

    campaign = campaign_of("find_max", measure)
    await campaign.find_max(OPTIONS, 0.05, 0.05, None)
    assert campaign.runs[0].options.concurrency == 16
    assert campaign.steps[0].rate == 700
    assert campaign.found is not None
    assert campaign.found.rate is not None
    assert campaign.found.rate <= 930 < campaign.found.lowest_missed <= campaign.found.rate * 1.06
    assert campaign.head.options.rate == campaign.found.rate
    report = to_json(campaign.head, campaign=campaign)
    assert report["find_max"]["rate"] == campaign.found.rate
    assert report["levels"][report["find_max"]["steps"][-1]["level"]]["rate"] == campaign.found.rate
    json.dumps(report, allow_nan=False)


async def test_find_max_wants_an_answer_to_begin_with() -> None:
    campaign = campaign_of("find_max", lambda options: run_of(options, rows_per_s=0))
    with pytest.raises(ServerError, match="none of 1,000 requests succeeded"):
        await campaign.find_max(OPTIONS, 0.05, 0.05, None)
    assert len(campaign.runs) == 1


async def test_a_sweep_stands_for_its_best_level() -> None:
    rates = {1: 50.0, 2: 90.0, 4: 80.0}
    campaign = campaign_of(
        "sweep", lambda options: run_of(options, rows_per_s=rates[options.concurrency])
    )
    await campaign.sweep([replace(OPTIONS, rate=None, concurrency=callers) for callers in rates])
    report = to_json(campaign.head, campaign=campaign)
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
    pairs = to_json(campaign.head, campaign=campaign)["pairs"]
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


def example(name: str) -> dict[str, object]:
    return json.loads((EXAMPLES / name).read_text())


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
    shorter = sweep | {"levels": sweep["levels"][2:4]}
    assert len(compare(sweep, shorter)) == 2
    with pytest.raises(InputError, match="no level in common"):
        compare(sweep, sweep | {"levels": [sweep["levels"][0] | {"label": "other"}]})
    assert compare(sweep, example("load-open.json"))[0].label.endswith(" and 300/s")


def test_what_else_differs_is_told() -> None:
    report = example("load-open.json")
    other = json.loads(json.dumps(report))
    other["options"]["rows"] = 8
    other["server"]["cpu"] = "Abacus"
    told = differences(report, other)
    assert told == ["option rows: 1 and 8", f"server cpu: {report['server']['cpu']} and Abacus"]
