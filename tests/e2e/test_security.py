"""TLS, mutual TLS and tokens against a real server: what is let in, what is refused, what is logged."""

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as oip

from rootserve.v1 import catalog_pb2, catalog_pb2_grpc
from tests.support.certificates import Certificates, make_certificates
from tests.support.server_process import (
    ServerProcess,
    infer_request,
    plain_images,
    running_server,
    wait_until,
)

MODEL = "nin-root-16"
FAKE = ("--models", MODEL, "--engine", "fake", "--device", "cpu")
INFER_TOKEN = "infer-0123456789abcdef"
HEALTH_TOKEN = "health-0123456789abcdef"
ADMIN_TOKEN = "admin-0123456789abcdef"
WRONG_TOKEN = "wrong-0123456789abcdef"
LATER_TOKEN = "later-0123456789abcdef"
ALL_TOKENS = (INFER_TOKEN, HEALTH_TOKEN, ADMIN_TOKEN, WRONG_TOKEN, LATER_TOKEN)
TOKENS = f"""
[[token]]
name = "ci"
sha256 = "{hashlib.sha256(INFER_TOKEN.encode()).hexdigest()}"
groups = ["health", "inference"]

[[token]]
name = "probe"
secret = "{HEALTH_TOKEN}"
groups = ["health"]

[[token]]
name = "operator"
secret = "{ADMIN_TOKEN}"
groups = ["admin"]
"""


@dataclass(frozen=True)
class Secured:
    """A server with TLS and tokens, and the files that go with it."""

    server: ServerProcess
    certificates: Certificates
    token_file: Path


def write_private(path: Path, text: str) -> Path:
    """Write it whole or not at all, for its owner alone."""
    fresh = path.with_suffix(".new")
    fresh.touch(0o600)
    fresh.write_text(text)
    fresh.replace(path)
    return path


def assert_nothing_secret(text: str) -> None:
    for token in ALL_TOKENS:
        assert token not in text
        assert hashlib.sha256(token.encode()).hexdigest() not in text
    assert "PRIVATE KEY" not in text


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def tls_arguments(certificates: Certificates) -> tuple[str, ...]:
    cert, key = certificates.path("server.crt"), certificates.path("server.key")
    return ("--tls-cert", str(cert), "--tls-key", str(key))


def trusting(certificates: Certificates) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(certificates.content("ca.crt"))


@pytest.fixture(scope="module")
def secured(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    token_file = write_private(tmp_path_factory.mktemp("tokens") / "tokens.toml", TOKENS)
    arguments = (*FAKE, *tls_arguments(certificates), "--token-file", str(token_file))
    credentials = trusting(certificates)
    with running_server(
        *arguments, "--log-level", "debug", credentials=credentials, token=INFER_TOKEN
    ) as server:
        yield Secured(server, certificates, token_file)
        log = server.log()
    assert_nothing_secret(log)


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def is_refused_at_the_door(channel: grpc.Channel) -> bool:
    stub = health_pb2_grpc.HealthStub(channel)
    with channel, pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_tls_with_a_token_answers(secured: Secured) -> None:
    assert secured.server.infer(MODEL, plain_images(2, 7))[1][0] == 7.0


def test_plaintext_and_a_client_that_trusts_another_authority_do_not_connect(
    secured: Secured,
) -> None:
    address = secured.server.address
    assert is_refused_at_the_door(grpc.insecure_channel(address))
    stranger = grpc.ssl_channel_credentials(secured.certificates.content("stranger.crt"))
    assert is_refused_at_the_door(grpc.secure_channel(address, stranger))


def call(secured: Secured, method: str, metadata: list[tuple[str, str]]) -> grpc.StatusCode:
    """The status of a call; every kind of method is among them."""
    server = secured.server
    calls = {
        "Check": lambda: health_pb2_grpc.HealthStub(server.channel).Check(
            health_pb2.HealthCheckRequest(), metadata=metadata, timeout=10
        ),
        "Watch": lambda: next(
            health_pb2_grpc.HealthStub(server.channel).Watch(
                health_pb2.HealthCheckRequest(), metadata=metadata, timeout=10
            )
        ),
        "ModelReady": lambda: server.stub.ModelReady(
            oip.ModelReadyRequest(name=MODEL), metadata=metadata, timeout=10
        ),
        "ModelInfer": lambda: server.stub.ModelInfer(
            infer_request(MODEL, plain_images(1)), metadata=metadata, timeout=10
        ),
        "ModelStreamInfer": lambda: list(
            server.stub.ModelStreamInfer(
                iter([infer_request(MODEL, plain_images(1))] * 2), metadata=metadata, timeout=10
            )
        ),
        "ListModels": lambda: catalog_pb2_grpc.CatalogServiceStub(server.channel).ListModels(
            catalog_pb2.ListModelsRequest(), metadata=metadata, timeout=10
        ),
        "RepositoryModelLoad": lambda: server.stub.RepositoryModelLoad(
            oip.RepositoryModelLoadRequest(model_name="nope"), metadata=metadata, timeout=10
        ),
        "TraceSetting": lambda: server.stub.TraceSetting(
            oip.TraceSettingRequest(), metadata=metadata, timeout=10
        ),
    }
    try:
        calls[method]()
    except grpc.RpcError as error:
        assert_nothing_secret(str(error))
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("method", "group"),
    [
        ("Check", "health"),
        ("Watch", "health"),
        ("ModelReady", "health"),
        ("ModelInfer", "inference"),
        ("ModelStreamInfer", "inference"),
        ("ListModels", "inference"),
        ("RepositoryModelLoad", "admin"),
        ("TraceSetting", "admin"),
    ],
)
def test_each_method_is_for_tokens_of_its_group(secured: Secured, method: str, group: str) -> None:
    for metadata in (
        [],
        bearer(WRONG_TOKEN),
        bearer(INFER_TOKEN) * 2,
        [("authorization", INFER_TOKEN)],
    ):
        assert call(secured, method, metadata) is grpc.StatusCode.UNAUTHENTICATED
    for token, groups in (
        (INFER_TOKEN, {"health", "inference"}),
        (HEALTH_TOKEN, {"health"}),
        (ADMIN_TOKEN, {"admin"}),
    ):
        code = call(secured, method, bearer(token))
        assert (code is not grpc.StatusCode.PERMISSION_DENIED) == (group in groups)
        assert code is not grpc.StatusCode.UNAUTHENTICATED
        if group in groups and group != "admin":
            assert code is grpc.StatusCode.OK


def test_a_refusal_names_the_group_and_is_counted(secured: Secured) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        secured.server.stub.ModelInfer(
            infer_request(MODEL, plain_images(1)), metadata=bearer(HEALTH_TOKEN), timeout=10
        )
    assert "the token 'probe' does not have the group 'inference'" in caught.value.details()
    # An http_proxy meant for the outside world must not catch it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{secured.server.metrics_address}/metrics") as page:
        text = page.read().decode()
    assert 'rootserve_refusals_total{model="",reason="permission_denied"}' in text
    assert 'rootserve_refusals_total{model="",reason="unauthenticated"}' in text
    assert_nothing_secret(text)


def test_bytes_that_are_no_message_are_not_even_decoded_without_a_token(secured: Secured) -> None:
    method = secured.server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    for metadata, code in (
        ([], grpc.StatusCode.UNAUTHENTICATED),
        (bearer(INFER_TOKEN), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            method(b"\xff" * 100, metadata=metadata, timeout=10)
        assert caught.value.code() is code
    wait_until(lambda: "token=ci" in secured.server.log(), 10)
    (line,) = (line for line in secured.server.log().splitlines() if "token=ci" in line)
    assert "request refused (invalid_request)" in line
    assert "method=/inference.GRPCInferenceService/ModelInfer" in line


def test_the_token_file_is_read_again_when_it_changes(secured: Secured) -> None:
    def infers(token: str) -> bool:
        return call(secured, "ModelInfer", bearer(token)) is grpc.StatusCode.OK

    later = TOKENS + (
        f'[[token]]\nname = "later"\nsecret = "{LATER_TOKEN}"\ngroups = ["inference"]\n'
    )
    assert not infers(LATER_TOKEN)
    write_private(secured.token_file, later)
    wait_until(lambda: infers(LATER_TOKEN), 10)
    # A bad change keeps what was there.
    write_private(secured.token_file, f"secret = '{WRONG_TOKEN}'\n[[")
    wait_until(lambda: infers(LATER_TOKEN) and "stay in force" in secured.server.log(), 10)
    write_private(secured.token_file, TOKENS)
    wait_until(lambda: not infers(LATER_TOKEN), 10)
    assert infers(INFER_TOKEN)


def rootserve(
    *arguments: str, token: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ROOTSERVE_")}
    if token:
        clean["ROOTSERVE_TOKEN"] = token
    result = subprocess.run(
        [sys.executable, "-m", "rootserve.client", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env={**clean, **environment},
    )  # fmt: skip
    assert_nothing_secret(result.stdout + result.stderr)
    return result


def test_the_command_line_with_tls_and_a_token(
    secured: Secured, tmp_path: Path, cat_path: Path
) -> None:
    ca = str(secured.certificates.path("ca.crt"))
    token_file = write_private(tmp_path / "token", f"{INFER_TOKEN}\n")
    where = ("--server", secured.server.address, "--tls-ca", ca, "--token-file", str(token_file))
    health = rootserve("health", *where)
    assert (health.returncode, health.stderr) == (0, "")
    assert MODEL in health.stdout
    infer = rootserve("infer", str(cat_path), "--model", MODEL, *where)
    assert infer.returncode == 0, infer.stderr
    report = tmp_path / "report.json"
    loop = ("--concurrency", "2", "--duration", "0.5", "--warmup", "0.1", "--json", str(report))
    load = rootserve("load", "--model", MODEL, *loop, *where)
    assert load.returncode == 0, load.stderr
    assert_nothing_secret(report.read_text())
    content = json.loads(report.read_text())
    assert content["options"]["tls"] is True
    assert "credentials" not in content["options"]
    assert content["errors"] == {}


def test_the_command_line_takes_the_token_from_the_environment_and_the_systems_authorities(
    secured: Secured,
) -> None:
    ca = str(secured.certificates.path("ca.crt"))
    where = ("--server", secured.server.address, "--tls")
    models = rootserve("models", "--json", *where, token=INFER_TOKEN, SSL_CERT_FILE=ca)
    assert models.returncode == 0, models.stderr
    # A token for health alone tells the state and no more.
    health = rootserve("health", *where, token=HEALTH_TOKEN, SSL_CERT_FILE=ca)
    assert (health.returncode, health.stdout) == (0, "server  SERVING\n")


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "UNAUTHENTICATED: no token came"),
        (WRONG_TOKEN, "UNAUTHENTICATED: the token that came is not known"),
        (HEALTH_TOKEN, "PERMISSION_DENIED: the token 'probe' does not have the group 'inference'"),
    ],
)
def test_the_command_line_is_refused_in_one_line(
    secured: Secured, token: str | None, words: str
) -> None:
    ca = str(secured.certificates.path("ca.crt"))
    result = rootserve("models", "--server", secured.server.address, "--tls-ca", ca, token=token)
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith(f"rootserve: {words}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [None, "stranger.crt"])
def test_a_failed_handshake_is_one_line(secured: Secured, name: str | None) -> None:
    trust = ("--tls-ca", str(secured.certificates.path(name))) if name else ()
    result = rootserve("models", "--server", secured.server.address, *trust)
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.count("\n") == 1
    assert ("no TLS connection" if name else "wants TLS") in result.stderr


def test_mutual_tls_is_for_clients_with_a_certificate(certificates: Certificates) -> None:
    ca = str(certificates.path("ca.crt"))
    mutual = grpc.ssl_channel_credentials(
        certificates.content("ca.crt"),
        certificates.content("client.key"),
        certificates.content("client.crt"),
    )
    stranger = grpc.ssl_channel_credentials(
        certificates.content("ca.crt"),
        certificates.content("stranger.key"),
        certificates.content("stranger.crt"),
    )
    arguments = (*FAKE, *tls_arguments(certificates), "--tls-client-ca", ca)
    limits = ("--max-concurrent-streams", "8", "--max-connection-age-s", "1", "--drain-s", "1")
    with running_server(*arguments, *limits, credentials=mutual) as server:
        assert server.infer(MODEL, plain_images(1, 3))[0][0] == 3.0
        for refused in (trusting(certificates), stranger):
            assert is_refused_at_the_door(grpc.secure_channel(server.address, refused))
        with_tls = ("models", "--server", server.address, "--tls-ca", ca)
        identity = ("--tls-cert", str(certificates.path("client.crt")))
        identity += ("--tls-key", str(certificates.path("client.key")))
        assert rootserve(*with_tls, *identity).returncode == 0
        alone = rootserve(*with_tls)
        assert alone.returncode == 3
        assert "no TLS connection" in alone.stderr
        assert_cut_off_by_age(server)


def assert_cut_off_by_age(server: ServerProcess) -> None:
    """A watch that never ends by itself is ended: connection age, then the time to finish."""
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
    began_s = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        for _ in watch:
            pass
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert 0.5 < time.monotonic() - began_s < 15
    # The next call goes over a new connection.
    assert server.infer(MODEL, plain_images(1, 4))[0][0] == 4.0


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "rootserve.server",
        "--port",
        "0",
        "--metrics-port",
        "0",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_start_is_refused_when_the_key_does_not_fit(certificates: Certificates) -> None:
    cert, key = str(certificates.path("server.crt")), str(certificates.path("client.key"))
    result = start(*FAKE, "--tls-cert", cert, "--tls-key", key)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"rootserve-server: error: tls_key: {key} does not fit tls_cert, {cert}; "
        "expected the key it was made with\n"
    )


def test_a_start_is_refused_when_others_can_read_the_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(TOKENS)
    path.chmod(0o640)
    result = start(*FAKE, "--token-file", str(path))
    assert (result.returncode, result.stdout) == (2, "")
    assert f"token_file: {path} has mode 640" in result.stderr
    assert result.stderr.count("\n") == 1
    assert_nothing_secret(result.stderr)


def test_listening_to_the_world_without_protection_is_warned_of(tmp_path: Path) -> None:
    with ServerProcess(*FAKE, "--host", "0.0.0.0") as server:
        log = server.log()
    assert log.count("WARNING") == 1
    assert "listening on 0.0.0.0 without tokens or client certificates" in log
    token_file = write_private(tmp_path / "tokens.toml", TOKENS)
    arguments = (*FAKE, "--host", "0.0.0.0", "--token-file", str(token_file))
    with ServerProcess(*arguments) as server:
        log = server.log()
    assert log.count("WARNING") == 1
    assert "with tokens but without TLS" in log


def test_the_loopback_is_not_warned_of() -> None:
    with ServerProcess(*FAKE) as server:
        assert "WARNING" not in server.log()


def test_the_command_line_refuses_files_that_do_not_fit(certificates: Certificates) -> None:
    cert, key = str(certificates.path("client.crt")), str(certificates.path("server.key"))
    result = rootserve("models", "--tls-cert", cert, "--tls-key", key)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"rootserve: --tls-key: {key} is not the key of {cert}; "
        "expected its PEM private key, without a password\n"
    )
