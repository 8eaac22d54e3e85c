"""Deadlines and floors of a load run: what is asked, and what counts as kept."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from rootserve.client.commands.load_arguments import Asked
from rootserve.client.commands.measurement import measurement_of
from rootserve.client.credentials import PLAINTEXT, Connection
from rootserve.client.errors import InputError
from rootserve.client.load import LoadOptions, Mix, read_trace
from rootserve.client.load.objective import Goals
from rootserve.client.load.recording import Recorder
from rootserve.client.load.requests import Kind, RequestPool, plan_for
from rootserve.client.load.result import RunFacts, result_of
from rootserve.client.load.specify import deadlines_of, floors_of, variants_of
from rootserve.client.wire import Chosen, read_chosen
from tests.support.attained import BEST, FAST, OPTIONS, answer, kept, measured, recorder_of
from tests.support.load_results import STARTED

# What is asked.


def test_deadlines_floors_and_variants_are_mixes_like_the_others() -> None:
    assert deadlines_of("50=3,200=7") == Mix((0.05, 0.2), (3.0, 7.0))
    assert deadlines_of("50,none=2") == Mix((0.05, math.inf), (1.0, 2.0))
    assert deadlines_of("none") is None
    assert floors_of("0=1,0.9=3") == Mix((0.0, 0.9), (1.0, 3.0))
    assert floors_of("0.89") == 0.89
    assert variants_of("nin-orig, nin-root-4") == ("nin-orig", "nin-root-4")


@pytest.mark.parametrize("text", ["a,", "a,a", " ", ",a"])
def test_a_set_of_variants_has_each_name_once(text: str) -> None:
    with pytest.raises(InputError, match=r"--variants .*expected names, each once"):
        variants_of(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"deadline_s": math.inf}, "deadline inf: expected"),
        ({"deadline_s": Mix((0.1, -math.inf), (1.0, 1.0))}, "deadline -inf: expected"),
        ({"deadline_s": math.nan}, "deadline nan: expected"),
        ({"accuracy_floor": 1.1}, "accuracy-floor 1.1: expected 0 to 1"),
        (
            {"accuracy_floor": Mix((0.5, math.nan), (1.0, 1.0))},
            "accuracy-floor nan: expected 0 to 1",
        ),
    ],
)
def test_what_nobody_can_keep_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LoadOptions(**{"model": "m", "concurrency": 1} | changes)


def test_requests_tell_what_they_ask_for() -> None:
    options = LoadOptions(
        model="nin-auto",
        concurrency=1,
        deadline_s=Mix((0.05, math.inf), (1.0, 1.0)),
        accuracy_floor=Mix((0.0, 0.89), (1.0, 1.0)),
        variants=("nin-orig", "nin-root-4"),
    )
    plan = plan_for(options)
    pair = ("nin-orig", "nin-root-4")
    assert set(plan.kinds) == {
        Kind("nin-auto", 1, None, deadline_s, floor, pair)
        for deadline_s in (0.05, None)
        for floor in (None, 0.89)
    }
    pool = RequestPool(plan, {"nin-auto": np.zeros((1, 3, 32, 32), np.uint8)})
    for n in range(20):
        body, number = pool.body(n)
        kind = plan.kinds[number]
        told = service_pb2.ModelInferRequest.FromString(body).parameters
        assert told["variants"].string_param == "nin-orig,nin-root-4"
        assert ("deadline_ms" in told) == (kind.deadline_s is not None)
        assert ("accuracy_floor" in told) == (kind.accuracy_floor is not None)
        assert told["accuracy_floor"].double_param == (kind.accuracy_floor or 0.0)
    assert options.to_json()["deadline_s"] == "0.05=1,inf=1"
    json.dumps(options.to_json(), allow_nan=False)


def test_the_same_seed_makes_the_same_requests_with_floors_and_without() -> None:
    rows = Mix((1, 2, 4), (1.0, 1.0, 1.0))
    plain = LoadOptions(model="m", concurrency=1, rows=rows, seed=5)
    floored = replace(plain, accuracy_floor=Mix((0.0, 0.9), (1.0, 1.0)))
    plans = plan_for(plain), plan_for(floored)
    drawn = [[plan.kinds[plan.kind_of(n)].rows for n in range(1000)] for plan in plans]
    assert drawn[0] == drawn[1]


def test_a_trace_may_tell_floors_and_variants(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        'at_s,deadline_ms,accuracy_floor,variants\n0,50,0.9,"nin-orig,nin-root-4"\n1,,,\n2,,0,nin-orig\n'
    )
    options = LoadOptions(model="nin-auto", rate=read_trace(path), accuracy_floor=0.5)
    plan = plan_for(options)
    asked = [plan.kinds[plan.kind_of(n)] for n in range(3)]
    assert [kind.accuracy_floor for kind in asked] == [0.9, 0.5, None]
    assert [kind.variants for kind in asked] == [("nin-orig", "nin-root-4"), (), ("nin-orig",)]
    assert options.has_deadlines
    path.write_text("at_s,accuracy_floor\n0,1.5\n")
    with pytest.raises(InputError, match=r"line 2: .*up to 1 for accuracy_floor, in at_s, acc"):
        read_trace(path)


def measurement(**written: object) -> object:
    return measurement_of(
        Asked(model=["nin-auto"], **written), Connection("127.0.0.1:1", PLAINTEXT)
    )


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (
            {"rate": "5", "slo_attainment": 0.99},
            "--slo-attainment without --deadline-ms: expected both",
        ),
        (
            {"rate": "5", "slo_attainment": 99.0, "deadline_ms": "5"},
            "--slo-attainment 99: expected a share",
        ),
        (
            {"rate": "5", "slo_attainment": math.nan, "deadline_ms": "5"},
            "--slo-attainment nan: expected",
        ),
        ({"rate": "5", "slo_attainment": 0.9, "deadline_ms": "none"}, "without --deadline-ms"),
        ({"find_max": True}, "--find-max without --slo-p99-ms or --slo-attainment"),
        (
            {"rate": "5", "slo_attainment": 0.9, "deadline_ms": "5", "versus": "b"},
            "--versus with --slo-p99-ms, --slo-attainment or --find-max",
        ),
    ],
)
def test_an_attainment_wants_deadlines(written: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        measurement(**written)


def test_both_objectives_may_be_asked_for() -> None:
    found = measurement(rate="5", slo_attainment=0.99, slo_p99_ms=50.0, deadline_ms="40=1,none=1")
    assert found.goals == Goals(0.05, 0.99)
    assert found.goals.text == "p99 within 50 ms and attainment of 99%"


# What counts.


def test_attainment_is_of_all_that_were_due() -> None:
    recorder = recorder_of()
    answer(recorder, 0.05)
    answer(recorder, 0.099)
    answer(recorder, 0.101, chosen=FAST)
    recorder.failed(2.0, "RESOURCE_EXHAUSTED", reason="DEADLINE_INFEASIBLE")
    recorder.failed(2.0, "UNAVAILABLE")
    recorder.failed(2.0, "DEADLINE_EXCEEDED")
    recorder.unfinished(9.0)
    recorder.never_sent(9.5)
    result = measured(recorder)
    found = result.attained
    assert found is not None
    assert (found.in_time, found.late, result.requests) == (2, 1, 8)
    assert found.attainment == 0.25
    assert found.accuracy_goodput == pytest.approx(1.8 / 8)
    assert found.mean_accuracy == pytest.approx(0.9)
    assert found.variants == {"nin-orig": 2, "nin-root-16": 1}
    # Admitted, and late or dropped; what is refused was not promised.
    assert found.promises_broken == 2
    assert result.reasons == {
        "DEADLINE_EXCEEDED": 1, "DEADLINE_INFEASIBLE": 1, "UNAVAILABLE": 1,
    }  # fmt: skip
    assert result.errors == {"DEADLINE_EXCEEDED": 1, "RESOURCE_EXHAUSTED": 1, "UNAVAILABLE": 1}


def test_a_request_that_left_late_is_late_and_no_promise_is_broken() -> None:
    recorder = recorder_of()
    answer(recorder, 0.15, wait_s=0.1)
    found = kept(recorder)
    assert (found.in_time, found.late, found.promises_broken) == (0, 1, 0)
    assert (found.attainment, found.attainment_from_arrival) == (0.0, 1.0)


def test_without_a_timeline_a_promise_is_timed_from_the_sending() -> None:
    recorder = recorder_of()
    recorder.succeeded_at(2.0, 2.1, 2.15, None, chosen=BEST)
    recorder.succeeded_at(2.0, 2.1, 2.25, None, chosen=BEST)
    found = kept(recorder)
    assert (found.in_time, found.late, found.promises_broken) == (0, 2, 1)


def test_a_call_that_the_client_gave_up_breaks_no_promise() -> None:
    options = replace(OPTIONS, timeout_s=0.05)
    recorder = recorder_of(options)
    recorder.failed(2.0, "DEADLINE_EXCEEDED")
    assert kept(recorder, options).promises_broken == 0


def test_each_kind_has_its_own_deadline_and_floor() -> None:
    options = replace(
        OPTIONS,
        deadline_s=Mix((0.05, math.inf), (1.0, 1.0)),
        accuracy_floor=Mix((0.0, 0.85), (1.0, 1.0)),
    )
    recorder = recorder_of(options)
    for kind, asked in enumerate(plan_for(options).kinds):
        answer(recorder, 0.06, kind=kind, chosen=FAST)
        assert asked.deadline_s in {0.05, None}
    found = kept(recorder, options)
    assert (found.in_time, found.late) == (2, 2), "without a deadline any answer is in time"
    assert found.below_floor == 2


def test_a_single_model_has_the_accuracy_that_the_server_tells_of_it() -> None:
    options = replace(OPTIONS, model=Mix(("a", "b"), (1.0, 1.0)))
    recorder = recorder_of(options, {"a": 0.9})
    kinds = [kind.model for kind in plan_for(options).kinds]
    answer(recorder, 0.05, kind=kinds.index("a"), chosen=None)
    found = kept(recorder, options)
    assert (found.accuracy_goodput, found.variants) == (0.9, {})
    answer(recorder, 0.05, kind=kinds.index("b"), chosen=None)
    result = measured(recorder, options)
    assert result.attained is not None
    assert result.attained.attainment == 1.0
    assert result.attained.accuracy_goodput is None, "that of b is not known"
    by_model = {part.name: part.attained for part in result.by_model}
    assert by_model["a"].accuracy_goodput == 0.9
    assert by_model["b"].accuracy_goodput is None


def test_without_deadlines_floors_and_variants_nothing_is_told() -> None:
    options = replace(OPTIONS, deadline_s=None)
    recorder = recorder_of(options)
    answer(recorder, 0.05, chosen=None)
    assert measured(recorder, options).attained is None
    answer(recorder, 0.05, chosen=BEST)
    assert kept(recorder, options).variants == {"nin-orig": 1}


def test_recordings_of_several_processes_add_up() -> None:
    def fill(recorder: Recorder, numbers: range) -> None:
        for n in numbers:
            # The second one meets the variants in another order.
            answer(
                recorder, 0.02 * n, due_s=1.0 + n / 10, chosen=(FAST, BEST)[(n + numbers[0]) % 2]
            )
            recorder.failed(2.0, "RESOURCE_EXHAUSTED", 0, 0, 2.0, "DEADLINE_INFEASIBLE")

    whole, parts = recorder_of(), [recorder_of(), recorder_of()]
    for recorder, numbers in zip(parts, (range(8), range(8, 15)), strict=True):
        fill(recorder, numbers)
        fill(whole, numbers)
    merged = parts[0].recording()
    merged.merge(parts[1].recording())
    facts = RunFacts(started_at=STARTED, end_s=10.0, interrupted=False, client_cpu_cores=0.1)
    expected, found = measured(whole), result_of(OPTIONS, merged, facts)
    assert found.attained is not None
    assert found.attained.accuracy_goodput == pytest.approx(expected.attained.accuracy_goodput)
    assert found.attained.variants == expected.attained.variants
    assert found.reasons == expected.reasons
    for mine, theirs in zip(found.time_series, expected.time_series, strict=True):
        assert (mine.in_time, mine.variants) == (theirs.in_time, theirs.variants)
        assert mine.accuracy_in_time == pytest.approx(theirs.accuracy_in_time)


def test_seconds_tell_what_was_due_in_them_and_who_answered_in_them() -> None:
    recorder = recorder_of()
    answer(recorder, 0.05, due_s=2.98)
    answer(recorder, 0.2, due_s=3.5, chosen=FAST)
    second = {one.second: one for one in measured(recorder).time_series}
    assert (second[2].in_time, second[2].variants) == (1, {})
    assert second[2].accuracy_in_time == pytest.approx(0.9)
    assert (second[3].in_time, second[3].variants) == (0, {"nin-orig": 1, "nin-root-16": 1})


def test_the_variant_is_read_from_an_answer() -> None:
    response = service_pb2.ModelInferResponse()
    assert read_chosen(response) is None
    response.parameters["variant"].string_param = "nin-orig"
    assert read_chosen(response) == Chosen("nin-orig", None)
    response.parameters["accuracy"].double_param = 0.9
    assert read_chosen(response) == BEST
