"""Certificates and authorities that are replaced while the service runs."""

import shutil
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as oip

from tests.support.certificates import Certificates, make_certificates
from tests.support.server_process import running_server, wait_until

FAKE = ("--models", "nin-orig", "--engine", "fake", "--device", "cpu")
READ = "TLS files have changed and were read"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("new"))


def install(folder: Path, certificates: Certificates, *names: str) -> None:
    """As an operator does: beside the old file, then renamed."""
    for name in names:
        partial = folder / f"{name}.partial"
        shutil.copy(certificates.path(name), partial)
        partial.replace(folder / name)


def connects(address: str, credentials: grpc.ChannelCredentials) -> bool:
    """Whether a new connection gets an answer; the pool of connections is not shared."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options) as channel:
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
    return True


def trusting(certificates: Certificates) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(certificates.content("ca.crt"))


def test_new_connections_get_a_new_certificate_and_old_ones_live_on(
    tmp_path: Path, old: Certificates, new: Certificates
) -> None:
    install(tmp_path, old, "server.crt", "server.key")
    tls = ("--tls-cert", str(tmp_path / "server.crt"), "--tls-key", str(tmp_path / "server.key"))
    with running_server(*FAKE, *tls, credentials=trusting(old)) as server:
        assert connects(server.address, trusting(old))
        assert not connects(server.address, trusting(new))

        install(tmp_path, new, "server.crt")
        wait_until(lambda: "does not fit tls_cert" in server.log())
        assert connects(server.address, trusting(old)), "until the key is there as well"

        install(tmp_path, new, "server.key")
        wait_until(lambda: READ in server.log())
        assert connects(server.address, trusting(new))
        assert not connects(server.address, trusting(old))
        assert connects(server.address, trusting(new)), "and so does the one after"
        assert server.stub.ServerLive(oip.ServerLiveRequest(), timeout=10).live, (
            "the old connection"
        )
        assert server.log().count("does not fit tls_cert") == 1
        assert "PRIVATE KEY" not in server.log()


def test_a_new_authority_lets_its_clients_in_and_the_old_ones_out(
    tmp_path: Path, old: Certificates, new: Certificates
) -> None:
    install(tmp_path, old, "server.crt", "server.key", "ca.crt")
    tls = ("--tls-cert", str(tmp_path / "server.crt"), "--tls-key", str(tmp_path / "server.key"))
    mutual = ("--tls-client-ca", str(tmp_path / "ca.crt"))

    def of(client: Certificates) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            old.content("ca.crt"), client.content("client.key"), client.content("client.crt")
        )

    with running_server(*FAKE, *tls, *mutual, credentials=of(old)) as server:
        assert connects(server.address, of(old))
        assert not connects(server.address, of(new))
        (tmp_path / "ca.crt").unlink()
        wait_until(lambda: "tls_client_ca: " in server.log())
        assert connects(server.address, of(old)), "what was read before stays in force"
        install(tmp_path, new, "ca.crt")
        wait_until(lambda: READ in server.log())
        assert connects(server.address, of(new))
        assert not connects(server.address, of(old))
