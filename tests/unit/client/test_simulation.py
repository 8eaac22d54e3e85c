"""The simulated service: every request has one fate, time costs what the table says, rivals keep to rules."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rootserve.client.errors import InputError
from rootserve.client.load.mix import Mix
from rootserve.client.load.pacer import GammaSchedule, SteadyRate
from rootserve.client.load.trace import Trace, TraceEntry
from rootserve.client.simulation.arrivals import (
    Arrival,
    Asked,
    instants,
    maf_shaped,
    merged,
    of_trace,
    schedule_of,
)
from rootserve.client.simulation.replay import replay
from rootserve.client.simulation.rivals import rivals
from rootserve.client.simulation.series import series_of
from rootserve.client.simulation.service import Service
from rootserve.client.simulation.summary import Summary
from rootserve.client.simulation.table_file import parse_table, read_table
from rootserve.client.simulation.world import Fault, Outcome, Run
from rootserve.server.core.arrangement import kind_beside
from rootserve.server.core.scheduler import Scheduler
from tests.support.simulated import KIND, MEMBERS, cells, document, latencies, recorded_run, service

NAMES = [member.variant for member in MEMBERS]
RIVALS = rivals(NAMES)


def arrivals(
    rate: float, seconds: float = 2.0, seed: int = 1, **asked: object
) -> tuple[Arrival, ...]:
    wanted = Asked(**{"deadline_s": 0.1, **asked})  # type: ignore[arg-type]
    return wanted.at(instants(schedule_of(SteadyRate(rate), seed, 1.0), seconds), seed)


def figures(made: Service, coming: tuple[Arrival, ...], **options: object) -> Summary:
    return made.summary(made.run(coming, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["rootserve", *RIVALS])
@pytest.mark.parametrize("rate", [50.0, 600.0, 3000.0])
def test_every_request_has_one_fate_and_no_floor_is_violated(name: str, rate: float) -> None:
    made = service(spread=1.5)
    if name != "rootserve":
        made = made.alternative(RIVALS[name], admission=False)
    coming = arrivals(rate, floor=Mix((0.0, 0.75, 0.85), (2.0, 1.0, 1.0)))
    run = made.run(coming, seed=3)
    assert len(run.fates) == len(coming)
    assert sum(batch.rows for batch in run.batches) >= sum(
        fate.outcome in {Outcome.MET, Outcome.LATE} for fate in run.fates
    )
    assert made.summary(run).floor_violations == 0


def test_a_batch_takes_what_the_table_says() -> None:
    made = service()
    alone = (Arrival(0.0, deadline_s=1.0, allowed=frozenset({"slow"})),)
    run = made.run(alone)
    (batch,) = run.batches
    assert batch.variant == "slow"
    assert batch.ended_s - batch.began_s == pytest.approx(0.005)
    assert run.fates[0].ended_s == batch.ended_s


def test_drawn_times_have_the_median_and_the_percentile_of_the_table() -> None:
    known = latencies(spread=2.0)
    drawn = [
        known.drawn_s(KIND, "fast", 8, z) for z in np.random.default_rng(0).normal(size=20_000)
    ]
    p50_s, p99_s = known.of(KIND, "fast", 8)
    assert np.quantile(drawn, 0.5) == pytest.approx(p50_s, rel=0.02)
    assert np.quantile(drawn, 0.99) == pytest.approx(p99_s, rel=0.05)
    assert np.mean(drawn) == pytest.approx(known.mean_s(KIND, "fast", 8), rel=0.02)


def test_between_sizes_latency_is_in_proportion() -> None:
    assert latencies().of(KIND, "slow", 3)[0] == pytest.approx(0.001 + 3 * 0.004)
    assert latencies().of(KIND, "slow", 64)[0] == pytest.approx(2 * (0.001 + 32 * 0.004))


def test_the_same_seed_gives_the_same_run() -> None:
    coming = arrivals(900.0)
    one, other = (service(spread=1.5).run(coming, seed=5) for _ in range(2))
    assert one == other
    assert one != service(spread=1.5).run(coming, seed=6)


def test_a_killed_worker_loses_nothing_and_comes_back() -> None:
    made = service(workers=2)
    coming = arrivals(300.0, deadline_s=2.0)
    run = made.run(coming, faults=[Fault(f"{KIND}-0", 0.5, 0.5)])
    assert Counter(fate.outcome for fate in run.fates) == {Outcome.MET: len(coming)}
    away = [batch for batch in run.batches if batch.worker == f"{KIND}-0"]
    assert not any(0.5 <= batch.began_s < 1.0 for batch in away)
    assert any(batch.began_s >= 1.0 for batch in away)


def test_a_slow_worker_takes_longer_for_a_while() -> None:
    made = service()
    pinned = frozenset({"fast"})
    coming = [Arrival(at_s, deadline_s=1.0, allowed=pinned) for at_s in (0.0, 1.0, 2.0)]
    run = made.run(coming, faults=[Fault(f"{KIND}-0", 0.9, 0.5, 3.0)])
    took = [batch.ended_s - batch.began_s for batch in run.batches]
    assert took == pytest.approx([0.002, 0.006, 0.002])


def test_a_fault_of_an_unknown_worker_is_named() -> None:
    with pytest.raises(ValueError, match="no worker other"):
        service().run(arrivals(10.0), faults=[Fault("other", 0.0, 1.0)])


@pytest.mark.parametrize("hand_over_s", [0.0, 0.0003, 0.002])
def test_overload_is_refused_or_dropped_and_not_answered_late(hand_over_s: float) -> None:
    coming = arrivals(3000.0)
    # Promises are exact where batches take exactly what is known.
    ours = figures(replace(service(), hand_over_s=hand_over_s), coming)
    assert 0.2 < ours.attainment < 0.5
    assert sum(ours.refused.values()) > 0.5
    assert ours.broken_promises == 0.0
    rival = figures(service().alternative(RIVALS["static slow"], admission=False), coming)
    assert not rival.refused
    assert rival.attainment < ours.attainment


def test_large_accurate_batches_are_computed_while_there_is_time_and_fast_ones_under_load() -> None:
    made = service(spread=1.5)
    accurate = max(MEMBERS, key=lambda member: member.accuracy)
    idle = figures(made, arrivals(0.3 * made.capacity(accurate.variant)))
    assert idle.attainment == 1.0
    assert idle.mean_accuracy == pytest.approx(accurate.accuracy)
    busy = figures(made, arrivals(1.5 * made.capacity()))
    assert busy.mean_accuracy is not None
    assert busy.mean_accuracy < idle.mean_accuracy
    assert busy.broken_promises < 0.02


def test_the_rivals_choose_as_their_rules_say() -> None:
    def variants(name: str, coming: tuple[Arrival, ...]) -> set[str]:
        run = service().alternative(RIVALS[name], admission=False).run(coming)
        return {batch.variant for batch in run.batches}

    alone = (Arrival(0.0, deadline_s=1.0),)
    assert variants("max-acc", alone) == variants("greedy", alone) == {"slow"}
    assert variants("max-batch", alone) == variants("slackfit", alone) == {"slow"}
    assert variants("min-accuracy", alone) == {"fast"}
    assert variants("min-accuracy", (Arrival(0.0, deadline_s=1.0, floor=0.75),)) == {"middle"}
    assert variants("static middle", alone) == {"middle"}
    tight = (Arrival(0.0, deadline_s=0.0035),)
    assert variants("max-acc", tight) == {"middle"}
    # 32 rows wait behind the first batch: all of them in time only with the fastest.
    crowd = tuple(Arrival(0.0001 * n, deadline_s=0.06) for n in range(33))
    run = service().alternative(RIVALS["greedy"], admission=False).run(crowd)
    assert {batch.variant for batch in run.batches if batch.rows > 16} == {"fast"}


def test_a_recorded_run_replayed_decides_the_same() -> None:
    recorder, run = recorded_run(arrivals(1500.0))
    assert {call.method for call in recorder.calls} >= {
        "offer",
        "poll",
        "batch_done",
        "worker_lost",
    }
    assert replay(recorder.calls, Scheduler(recorder.limits)) is None
    other = replay(recorder.calls, Scheduler(replace(recorder.limits, max_batch_rows=2)))
    assert other is not None
    assert other.answer != other.call.answer
    assert len(run.fates) == len(run.arrivals)


def test_gamma_gaps_have_the_mean_and_variation_asked_for() -> None:
    found = np.diff(instants(GammaSchedule(SteadyRate(1000.0), 1, 4.0), 30.0))
    assert np.mean(found) == pytest.approx(0.001, rel=0.05)
    assert np.var(found) / np.mean(found) ** 2 == pytest.approx(4.0, rel=0.1)


def test_the_shape_of_functions_keeps_the_mean_rate_and_has_spikes() -> None:
    counts = [
        len(instants(schedule_of(maf_shaped(500.0, 20.0, seed), seed, 1.0), 20.0))
        for seed in range(5)
    ]
    assert np.mean(counts) == pytest.approx(10_000, rel=0.05)
    profile = maf_shaped(500.0, 20.0, 1)
    times = [profile.reached_s(n) for n in range(0, 10_000, 50)]
    assert max(np.diff(times)) > 3 * min(np.diff(times))


def test_streams_are_merged_in_order_and_a_trace_is_told_of() -> None:
    both = merged(arrivals(50.0, caller="a"), arrivals(80.0, seed=2, caller="b"))
    assert [each.at_s for each in both] == sorted(each.at_s for each in both)
    attained = figures(service(), both).attainment_by_caller
    assert set(attained) == {"a", "b"}
    trace = Trace("t.csv", (TraceEntry(0.5, "fast", rows=2, accuracy_floor=0.7), TraceEntry(0.7)))
    first, second = of_trace(trace, Asked(deadline_s=0.2, floor=0.8), 1, NAMES.__contains__)
    assert (first.model, first.rows, first.floor, first.deadline_s) == ("fast", 2, 0.7, 0.2)
    assert (second.model, second.rows, second.floor) == ("", 1, 0.8)
    with pytest.raises(InputError, match=r"t\.csv: asks for other"):
        of_trace(Trace("t.csv", (TraceEntry(0.0, "other"),)), Asked(), 1, NAMES.__contains__)


def test_the_series_adds_up_to_the_run() -> None:
    run: Run = service().run(arrivals(700.0))
    found = series_of(run, 10)
    assert sum(each.offered for each in found) == len(run.arrivals)
    assert sum(sum(each.rows.values()) for each in found) == sum(each.rows for each in run.batches)
    assert sum(each.met for each in found) == sum(fate.outcome is Outcome.MET for fate in run.fates)


def test_a_latency_file_is_read_with_accuracies(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    path.write_text(json.dumps(document()))
    table = read_table(path)
    assert [member.variant for member in table.members] == NAMES
    assert table.latencies.kinds == (KIND,)
    assert list(table.latencies.cells[KIND, "slow"]) == cells(0.004, 1.2)


def test_batches_beside_others_are_no_kind_of_workers_to_plan_with() -> None:
    told = document()
    rows = told["latency"]
    assert isinstance(rows, list)
    beside = [{**row, "kind": kind_beside(row["kind"])} for row in rows]
    table = parse_table({**told, "latency": [*rows, *beside]})
    assert table.latencies.kinds == (KIND,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latency": []}, "has no 'latency'"),
        ({"members": [{"variant": "slow"}]}, "member 0 is"),
        ({"members": [{"variant": "slow", "accuracy": 90}]}, "accuracy 90; expected 0 to 1"),
        ({"latency": [{"kind": "cpu", "model": "slow", "rows": "many"}]}, "row 0 of 'latency' is"),
        ({"members": [{"variant": "none", "accuracy": 0.5}]}, "no latency of any of its members"),
        (
            {"latency": [{"kind": "", "model": "slow", "rows": 1, "p50_s": 0, "p99_s": 0}]},
            "expected 0 < p50 <= p99",
        ),
    ],
)
def test_a_latency_file_that_is_not_whole_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_table({**document(), **change})


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"deadline_s": 0.0}, "deadline of 0 s"),
        ({"deadline_s": math.nan}, "deadline of nan"),
        ({"floor": 1.5}, "floor of 1.5"),
        ({"rows": 0}, "0 rows came"),
    ],
)
def test_what_is_asked_for_must_be_possible(asked: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Asked(**asked)  # type: ignore[arg-type]


def test_a_service_needs_workers_that_are_known() -> None:
    with pytest.raises(InputError, match="workers gpu: nothing is known of them; expected cpu"):
        replace(service(), workers={"gpu": 1})
    with pytest.raises(InputError, match="no workers came"):
        replace(service(), workers={KIND: 0})
