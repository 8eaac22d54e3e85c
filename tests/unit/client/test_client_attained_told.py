"""How a load run with deadlines is judged, and how it is told: table, page, CSV, comparison."""

import asyncio
import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rootserve.client.load import LoadOptions, LoadResult
from rootserve.client.load.campaign import Campaign
from rootserve.client.load.comparison import compare
from rootserve.client.load.objective import Goals, judge
from rootserve.client.load.report import Report
from rootserve.client.load.reporting import report_of
from rootserve.client.load.seeking import RateSearch
from rootserve.client.report import render, to_csv
from rootserve.client.report.terminal import print_campaign, print_load
from rootserve.client.wire import Chosen
from tests.support.attained import OPTIONS, answer, busy, measured, recorder_of

# How it is judged.


def judged(
    in_time: int, missed: int, goal: float, p99_s: float | None = None
) -> tuple[object, ...]:
    recorder = recorder_of()
    for _ in range(in_time):
        answer(recorder, 0.05)
    for _ in range(missed):
        recorder.failed(2.0, "RESOURCE_EXHAUSTED")
    verdict = judge(measured(recorder), Goals(p99_s, goal))
    return verdict.met, verdict.decided, verdict.text


def test_an_attainment_is_met_or_missed() -> None:
    text = "99.00% of the requests were answered in time (attainment of 99% asked)"
    assert judged(99, 1, 0.99) == (True, True, f"objective met: {text}")
    met, decided, text = judged(98, 2, 0.99)
    assert (met, decided) == (False, True)
    assert text.startswith("objective missed: 98.00%")
    assert judged(100, 0, 1.0)[:2] == (True, True)
    assert judged(99, 1, 1.0)[:2] == (False, True)
    assert judged(60, 40, 0.6)[:2] == (True, True)


def test_a_single_request_does_not_decide_an_attainment() -> None:
    for in_time, missed in ((98, 1), (99, 0)):
        met, decided, text = judged(in_time, missed, 0.99)
        assert (met, decided) == (False, False)
        assert "99 requests in 10 s are too few to tell an attainment; expected 100 at" in text
    assert "expected 1,000 at least" in judged(300, 1, 0.999)[2]
    assert judged(300, 2, 0.999)[:2] == (False, True), "of a thousand one may miss"
    assert judged(0, 0, 0.99)[:2] == (False, True)


def test_two_objectives_are_both_to_be_met() -> None:
    met, decided, text = judged(99, 1, 0.99, p99_s=0.06)
    assert (met, decided) == (True, True)
    assert text.count("objective met") == 2
    assert judged(99, 1, 0.99, p99_s=0.01)[:2] == (False, True)
    assert judged(99, 1, 0.999, p99_s=0.06)[:2] == (False, False)
    assert judged(99, 1, 0.999, p99_s=0.01)[:2] == (False, True), "one that is missed decides"


def test_a_search_holds_an_attainment() -> None:
    """Up to 50 requests/s all are in time, and above no more than 50 of them."""
    search = RateSearch(OPTIONS, Goals(attainment=0.99), precision=0.1, start=20.0)
    while (run := search.next_run()) is not None:
        recorder = recorder_of(run)
        due = round(float(run.rate) * run.duration_s)
        for n in range(due):
            if n < 50 * run.duration_s:
                answer(recorder, 0.05, due_s=1.0)
            else:
                recorder.failed(1.0, "RESOURCE_EXHAUSTED")
        search.tell(run, measured(recorder, run), 0)
    assert search.found.limit == pytest.approx(50, rel=0.1)
    assert {step.held for step in search.steps} == {True, False}
    assert all((step.attainment >= 0.99) == step.held for step in search.steps)
    assert "attainment of 99% holds up to" in search.found.text(Goals(attainment=0.99).text)


# How it is told.


def printed(result: LoadResult | Report) -> str:
    screen = Console(file=io.StringIO(), width=80, highlight=False)
    (print_campaign if isinstance(result, Report) else print_load)(screen, result)
    text = screen.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_the_table_tells_what_was_kept() -> None:
    text = printed(busy())
    for words in (
        "attainment 66.67% answered in time, of 30 due",
        "accuracy-goodput 0.5667 accuracies of those, over all due",
        "accuracy 0.8500 mean of those in time",
        "late 5 answered, and after their deadline",
        "promises broken 5 admitted, and late or dropped",
        "refused 5 DEADLINE_INFEASIBLE",
        "variants: nin-root-16 60.0%, nin-orig 40.0%",
    ):
        assert words in " ".join(text.split())
    assert "below floor" not in text


def test_a_report_is_read_again_with_what_was_kept() -> None:
    report = report_of(busy())
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["attained"]["variants"] == {"nin-orig": 10, "nin-root-16": 15}
    again = Report.from_json(document)
    assert again.attained == report.attained
    assert json.loads(json.dumps(again.to_json())) == document
    told = (Path(__file__).parents[3] / "docs" / "load.md").read_text()
    assert [key for key in document["attained"] if f"`{key}`" not in told] == []
    assert [key for key in document["time_series"][0] if f"`{key}`" not in told] == []


def test_the_page_shows_what_was_kept() -> None:
    page = render(report_of(busy()))
    for words in (
        "66.67%", "attainment: answered in time, of all due", "0.5667", "Attainment over time",
        "Variants that answered", "Variants over time", "Reasons", "DEADLINE_INFEASIBLE",
    ):  # fmt: skip
        assert words in page
    options = replace(OPTIONS, deadline_s=None)
    recorder = recorder_of(options)
    answer(recorder, 0.05, chosen=None)
    assert "ttainment" not in render(report_of(measured(recorder, options)))


def test_a_page_without_any_answer_can_be_made() -> None:
    recorder = recorder_of()
    recorder.departed(2.0, 2.0)
    recorder.failed(2.0, "RESOURCE_EXHAUSTED", 0, 0, 2.1, "DEADLINE_INFEASIBLE")
    assert "0.00%" in render(report_of(measured(recorder)))
    render(report_of(measured(recorder_of())))


def test_more_variants_than_colours_are_drawn() -> None:
    recorder = recorder_of()
    for n in range(40):
        answer(recorder, 0.05, due_s=1 + n / 10, chosen=Chosen(f"v-{n % 9}", 0.9))
    page = render(report_of(measured(recorder)))
    assert all(f"v-{n}" in page for n in range(9))
    assert "others" in page


def test_csv_has_a_column_for_each_variant_and_reason() -> None:
    (row,) = csv.DictReader(io.StringIO(to_csv(report_of(busy()))))
    assert float(row["attainment"]) == pytest.approx(2 / 3)
    assert (row["in_time"], row["late"], row["promises_broken"]) == ("20", "5", "5")
    assert (row["variant_nin-orig"], row["variant_nin-root-16"]) == ("10", "15")
    assert row["reason_DEADLINE_INFEASIBLE"] == "5"


async def test_levels_of_a_sweep_have_their_attainment() -> None:
    async def run(options: LoadOptions) -> LoadResult:
        return replace(busy(), label=options.label)

    campaign = Campaign("sweep", run, asyncio.Event())
    await campaign.sweep([replace(OPTIONS, rate=rate) for rate in (10.0, 20.0)])
    verdict = judge(campaign.head, Goals(attainment=0.5))
    report = report_of(campaign.head, campaign=campaign, objective=verdict)
    text = printed(report)
    assert text.count("66.67%") == 2
    assert "goodput" in text
    assert text.count("too few") == 2
    assert "66.67%" in render(report)


async def test_a_search_by_attainment_has_a_page() -> None:
    async def run(options: LoadOptions) -> LoadResult:
        recorder = recorder_of(options)
        for n in range(round(float(options.rate) * options.duration_s)):
            answer(recorder, 0.05 if n < 500 else 0.5, due_s=1.0)
        return measured(recorder, options)

    campaign = Campaign("find_max", run, asyncio.Event())
    goals = Goals(attainment=0.95)
    await campaign.find_max(OPTIONS, goals, 0.2, 40.0)
    report = report_of(campaign.head, campaign=campaign)
    assert report.find_max is not None
    assert (report.find_max.objective_p99_s, report.find_max.objective_attainment) == (None, 0.95)
    assert "objective: 95.00%" in render(report)


async def test_pairs_tell_the_ratio_of_what_was_kept() -> None:
    async def run(options: LoadOptions) -> LoadResult:
        return busy()

    campaign = Campaign("pairs", run, asyncio.Event())
    await campaign.pairs(OPTIONS, replace(OPTIONS, model="nin-orig"), 2)
    ratios = campaign.ratios()
    assert ratios["attainment"].ratio == ratios["accuracy_goodput"].ratio == 1.0


def test_two_reports_are_compared_by_what_they_kept() -> None:
    a, b = report_of(busy()), report_of(busy())
    assert b.attained is not None
    better = replace(b.attained, attainment=1.0, variants={"nin-orig": 3, "nin-root-4": 1})
    (comparison,) = compare(a, replace(b, attained=better, reasons={}))
    found = {figure.name: figure for figure in comparison.figures}
    assert found["attainment"].ratio.ratio == pytest.approx(1.5)
    assert found["attainment"].ratio.low is not None
    assert found["promises broken"].a == found["promises broken"].b == 5
    assert (found["by nin-orig"].a, found["by nin-orig"].b) == (0.4, 0.75)
    assert (found["by nin-root-4"].a, found["by nin-root-4"].b) == (0.0, 0.25)
    assert (found["DEADLINE_INFEASIBLE"].a, found["DEADLINE_INFEASIBLE"].b) == (5, 0)
