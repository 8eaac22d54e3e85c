"""The simulated cluster loses nothing it can do, and its policies differ where they should."""

import random

import pytest

from benchmarks.cluster_load import Run
from benchmarks.cluster_simulated import (
    POLICIES,
    Node,
    Simulation,
    least_request,
    round_robin,
)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_ends_once_and_at_half_load_in_time(policy: str) -> None:
    simulation = Simulation(4, POLICIES[policy], load=0.5, requests=2000, seed=3)
    simulation.run(slow_node=False)
    assert len(simulation.times_s) + simulation.lost == 2000
    assert simulation.figures()["attainment"] == 1.0
    assert all(node.under_way == 0 for node in simulation._nodes)


def test_a_slow_node_gets_less_where_calls_under_way_are_counted() -> None:
    found = {}
    for name in ("round robin", "least request"):
        simulation = Simulation(10, POLICIES[name], load=0.7, requests=4000, seed=3)
        simulation.run(slow_node=True)
        found[name] = simulation.figures()["attainment"]
    assert found["least request"] > found["round robin"]


def test_policies_choose() -> None:
    nodes = [Node() for _ in range(3)]
    nodes[0].under_way = nodes[2].under_way = 5
    rng = random.Random(0)
    assert [round_robin(nodes, rng, number) for number in range(4)] == [*nodes, nodes[0]]
    chosen = [least_request(nodes, rng, 0) for _ in range(200)]
    assert chosen.count(nodes[1]) > 100


def test_a_run_says_what_was_lost_and_how_long_nothing_came() -> None:
    run = Run()
    run.note(0.0, 0.5, "OK", (("x-envoy-attempt-count", "2"),))
    run.note(1.0, 3.5, "OK", ())
    run.note(1.0, 1.1, "UNAVAILABLE", None)
    summary = run.summary()
    assert summary["failed"] == {"UNAVAILABLE": 1}
    assert (summary["sent"], summary["tried_again"]) == (3, 1)
    assert summary["longest_gap_s"] == pytest.approx(3.0)
    assert summary["p50_ms"] == pytest.approx(500)
    assert Run().quantile_ms(0.5) is None
