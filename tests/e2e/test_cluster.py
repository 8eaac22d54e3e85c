"""Real servers behind a real Envoy die, stop, restart and refuse, and no caller loses a request."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.cluster_load import service_request
from benchmarks.cluster_scenarios import (
    FAKE,
    MODEL,
    Cluster,
    cluster_of_fakes,
    kills,
    one_joins,
    one_of_two_dies,
    one_stops,
    overload,
    pids_left,
    rolling_restart,
    stream_in_a_drain,
)
from tests.support.envoy import INSTALLED, MISSING, running_envoy
from tests.support.nodes import running_nodes
from tests.support.server_process import wait_until

pytestmark = pytest.mark.skipif(not INSTALLED, reason=MISSING)

GRACE = ("--grace-s", "2")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with (
        running_nodes(3, *FAKE, *GRACE) as nodes,
        running_envoy([node.address for node in nodes]) as envoy,
    ):
        yield cluster_of_fakes(nodes, envoy)


@pytest.fixture
def whole(cluster: Cluster) -> Cluster:
    """All servers run, and the proxy has noticed."""
    for node in cluster.nodes:
        if not node.is_serving():
            node.kill()
            node.start()
            node.wait_serving()
    wait_until(lambda: cluster.envoy.healthy() == len(cluster.nodes))
    return cluster


def assert_nothing_lost(figures: dict[str, Any]) -> None:
    assert figures["failed"] == {}, figures
    assert figures["sent"] > 100


def test_killed_servers_lose_no_request(whole: Cluster) -> None:
    figures = asyncio.run(kills(whole, seconds=6, every_s=2))
    assert figures["kills"] >= 1, "as many as there is time for: the next waits until all serve"
    assert_nothing_lost(figures)


def test_a_rolling_restart_loses_no_request(whole: Cluster) -> None:
    figures = asyncio.run(rolling_restart(whole, pause_s=0.2))
    assert figures["exit_statuses"] == [0, 0, 0]
    assert_nothing_lost(figures)


def test_what_a_server_refuses_while_it_shuts_down_is_answered_by_another() -> None:
    with (
        running_nodes(2, *FAKE) as nodes,
        running_envoy([node.address for node in nodes]) as envoy,
    ):
        cluster = Cluster(nodes[:1], envoy, service_request(MODEL, 20), rate=75)
        figures = asyncio.run(rolling_restart(cluster, pause_s=1.5))
    assert_nothing_lost(figures)
    assert figures["tried_again"]


def test_requests_of_a_stopped_server_are_answered_by_others(whole: Cluster) -> None:
    figures = asyncio.run(one_stops(whole, stopped_s=9, seconds=3))
    assert_nothing_lost(figures)
    assert figures["tried_again"]


def test_a_stream_gets_its_answers_and_an_end_when_its_server_shuts_down(whole: Cluster) -> None:
    figures = asyncio.run(stream_in_a_drain(whole, before=20))
    assert figures == {
        "answers": {"OK": 21},
        "ended_with": "UNAVAILABLE",
        "exit_status": 0,
        "next_stream": ["OK"],
    }


def test_a_server_that_joins_gets_its_share() -> None:
    with (
        running_nodes(3, *FAKE, started=2) as nodes,
        running_envoy([node.address for node in nodes], healthy=2) as envoy,
    ):
        figures = asyncio.run(one_joins(cluster_of_fakes(nodes, envoy), patience_s=20))
        assert figures["has_its_share_after_s"] is not None, figures
        assert_nothing_lost(figures)
        wait_until(lambda: envoy.healthy() == 3)


def test_a_full_cluster_refuses_and_keeps_its_servers() -> None:
    queue = ("--max-queue-rows", "4", "--max-batch-rows", "4")
    with (
        running_nodes(2, *FAKE, *queue) as nodes,
        running_envoy([node.address for node in nodes]) as envoy,
    ):
        figures = asyncio.run(overload(cluster_of_fakes(nodes, envoy, load=1), 3, times=3))
    assert figures["failed"].keys() == {"RESOURCE_EXHAUSTED"}
    assert figures["tried_again"] == 0
    assert (figures["ejected"], figures["healthy"]) == (0, 2)


def test_hundreds_of_calls_survive_the_death_of_one_of_two_servers() -> None:
    with (
        running_nodes(2, *FAKE, "--max-queue-rows", "4096") as nodes,
        running_envoy([node.address for node in nodes]) as envoy,
    ):
        cluster = Cluster(nodes, envoy, service_request(MODEL, 20), rate=0)
        figures = asyncio.run(one_of_two_dies(cluster, 438))
        assert figures["under_way"] > 200, figures
        assert figures["tried_again"] > 0, figures
        assert figures["failed"] == {}
    assert pids_left(nodes) == []
