"""Why a server cannot be reached: TLS it wants, a proxy on the way; and when the way is found after all."""

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from rootserve.client.address import Address, parse_address
from rootserve.client.blocking import Client
from rootserve.client.channel import _channel_options
from rootserve.client.errors import Unreachable
from rootserve.client.inference import AsyncClient
from rootserve.client.reach import is_this_machine
from tests.integration.client.fake_rootserve import FakeRootserve
from tests.support.certificates import make_certificates


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[str]:
    """A gRPC server that wants TLS."""
    made = make_certificates(tmp_path)
    server = grpc.server(ThreadPoolExecutor(1))
    pair = (made.content("server.key"), made.content("server.crt"))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(grace=None).wait()


async def test_a_port_that_wants_tls_is_called_one(tls_port: str) -> None:
    with pytest.raises(Unreachable, match=r"wants TLS, and was spoken to without it: give --tls"):
        await AsyncClient(tls_port).__aenter__()
    with pytest.raises(Unreachable, match="wants TLS"):
        await asyncio.to_thread(Client(tls_port).__enter__)


async def test_a_port_where_nobody_listens_is_not(nobody: str) -> None:
    with pytest.raises(Unreachable, match="no gRPC server answers"):
        await AsyncClient(nobody).__aenter__()


def test_a_client_may_be_made_before_there_is_an_event_loop(fake: FakeRootserve) -> None:
    client = AsyncClient(fake.address)

    async def state() -> str:
        async with client:
            return await client.health()

    # And used again, in another loop.
    assert [asyncio.run(state()) for _ in range(2)] == ["SERVING", "SERVING"]


def test_the_machines_own_names_need_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        addresses = {"this-very-host": "127.0.0.1", "elsewhere": "203.0.113.9"}
        if host not in addresses:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (addresses[host], 0))]

    monkeypatch.setattr("rootserve.client.reach.socket.getaddrinfo", resolve)
    assert is_this_machine(Address("this-very-host", 8001))
    assert not is_this_machine(Address("elsewhere", 8001))
    assert not is_this_machine(Address("nowhere", 8001))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    option = "grpc.enable_http_proxy"
    assert (option, 0) in _channel_options(Address("this-very-host", 8001))
    assert (option, 1) in _channel_options(Address("elsewhere", 8001))


async def test_a_proxy_on_the_way_is_named(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://{nobody}")
    with pytest.raises(
        Unreachable, match=r"the proxy that \$http_proxy names: put server\.invalid"
    ):
        await AsyncClient(parse_address("server.invalid:8001"), connect_timeout_s=2).__aenter__()
