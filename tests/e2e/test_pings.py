"""Clients that ping while they wait: those that do so as often as they may are never cut off."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.ping_counter import PingCounter
from tests.support.server_process import ServerProcess, running_server, wait_until

PING_S = 0.5
OPTIONS = [
    ("grpc.keepalive_time_ms", round(PING_S * 1000)),
    ("grpc.keepalive_timeout_ms", 60_000),
    # gRPC's clients send only two pings without data of their own, unless they are told otherwise.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
]


@contextmanager
def server_that_takes_pings_every(interval_s: float) -> Iterator[ServerProcess]:
    arguments = ("--models", "nin-orig", "--engine", "fake", "--device", "cpu")
    with running_server(*arguments, "--min-ping-interval-s", str(interval_s)) as server:
        yield server


@contextmanager
def waiting(way: PingCounter) -> Iterator[tuple[grpc.Channel, grpc.Call]]:
    """A client that waits for news of health, of which there are none any more."""
    with grpc.insecure_channel(way.address, OPTIONS) as channel:
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(call).status == health_pb2.HealthCheckResponse.SERVING
        yield channel, call
        call.cancel()


@pytest.mark.parametrize("calls", ["waits", "idle"])
def test_a_client_that_pings_as_often_as_it_may_is_not_cut_off(calls: str) -> None:
    with (
        server_that_takes_pings_every(PING_S / 2) as server,
        PingCounter(server.address) as way,
        waiting(way) as (channel, call),
    ):
        if calls == "idle":
            call.cancel()
        before = way.pings
        wait_until(lambda: way.pings >= before + 8)
        assert call.is_active() == (calls == "waits")
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert way.connections == 1


def test_a_client_that_pings_more_often_is_told_so_and_comes_again_less_often() -> None:
    with (
        server_that_takes_pings_every(3600) as server,
        PingCounter(server.address) as way,
        waiting(way) as (channel, call),
    ):
        wait_until(call.done)
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert "too many pings" in call.details().lower()
        assert 3 <= way.pings <= 5, "two may come too early"
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert way.connections == 2
