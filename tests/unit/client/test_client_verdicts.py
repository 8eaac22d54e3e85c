"""What is said of a load run: whether its objective is met, and what makes its figures doubtful."""

from dataclasses import replace

import pytest

from rootserve.client.load.doubts import client_limited, doubts
from rootserve.client.load.objective import Goals, judge
from rootserve.client.load.report import Trial
from tests.support.load_results import OPTIONS, measured, recorder_of


def judged(*done_after_s: float, failed: int = 0, p99_s: float) -> tuple[bool, str]:
    recorder = recorder_of()
    for seconds in done_after_s:
        recorder.succeeded_at(2.0, 2.0, 2.0 + seconds, None)
    for _ in range(failed):
        recorder.failed(2.0, "INTERNAL")
    verdict = judge(measured(recorder), Goals(p99_s))
    return verdict.met, verdict.text


def test_objective_met_and_missed_tell_by_how_much() -> None:
    assert judged(*[0.010] * 100, p99_s=0.02) == (
        True,
        "objective met: 99% of the requests were answered within 10.000 ms, 10 ms (50.0%) below 20 ms",
    )
    assert judged(0.025, 0.025, p99_s=0.02) == (
        False,
        "objective missed: 99% of the requests were answered within 25.000 ms, 5 ms (25.0%) above 20 ms",
    )


def test_too_few_requests_do_not_decide() -> None:
    """Of ninety-nine the p99 is the slowest: one request would be the verdict."""
    for slowest_s in (0.01, 5.0):
        recorder = recorder_of()
        for seconds in [0.01] * 98 + [slowest_s]:
            recorder.succeeded_at(2.0, 2.0, 2.0 + seconds, None)
        verdict = judge(measured(recorder), Goals(1.0))
        assert not verdict.met
        assert not verdict.decided
        assert "99 requests in 10 s are too few to tell a 99th percentile" in verdict.text
        assert "expected 100 at least" in verdict.text
    recorder.succeeded_at(2.0, 2.0, 2.01, None)
    assert judge(measured(recorder), Goals(1.0)).met


def test_two_misses_decide_however_few_the_requests() -> None:
    assert "objective missed: 99%" in judged(5.0, 5.0, 0.01, p99_s=1.0)[1]
    assert "66.7% of the requests got no answer" in judged(0.01, failed=2, p99_s=1.0)[1]
    assert "not judged" in judged(0.01, failed=1, p99_s=1.0)[1]


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
    recorder = recorder_of()
    recorder.succeeded_at(2.0, 2.0, 2.01, None)
    recorder.unfinished(9.9)
    assert judge(measured(recorder), Goals(1.0)).met is False


def doubts_of(**changes: object) -> list[str]:
    return doubts(replace(measured(recorder_of()), requests=1000, **changes))


@pytest.mark.parametrize(
    ("changes", "words", "limited"),
    [
        ({}, [], False),
        ({"late_departures": 500, "held_back": 500}, ["500 requests waited to be sent"], False),
        ({"late_departures": 500}, ["bottleneck: 500 requests left more than 1 ms late"], True),
        ({"late_departures": 5}, [], False),
        ({"client_cpu_cores": 0.95}, ["bottleneck: it used 0.9"], True),
        ({"stable": False, "trials": [Trial(0, 1, 10, 0.1)]}, ["not stable within"], False),
        ({"lost_processes": 1}, ["1 of 1 client processes ended"], False),
        (
            {"errors": {"UNAVAILABLE": 7}, "trials": [Trial(0, 9, 1, 1)], "last_answer_s": 3.0},
            ["no answer after 3.0 s of the run (7 requests: UNAVAILABLE)"],
            False,
        ),
    ],
)
def test_doubts(changes: dict[str, object], words: list[str], limited: bool) -> None:
    options = replace(OPTIONS, stable_within=0.1).to_json()
    said = doubts_of(options=options, **changes)
    assert len(said) == len(words)
    for sentence, expected in zip(said, words, strict=True):
        assert expected in sentence
    assert client_limited(replace(measured(recorder_of()), requests=1000, **changes)) is limited
