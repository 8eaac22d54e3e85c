import ssl
from pathlib import Path

import grpc
import pytest

from rootserve.server.options import OptionError, read_settings
from rootserve.server.refusals import Reason
from rootserve.server.security import SecurityError
from rootserve.server.security.exposure import exposure_warning, is_loopback
from rootserve.server.security.tls import TlsFiles
from rootserve.server.wire.listening import server_options


def test_pem_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no PEM")
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
    for cert, words in (
        (tmp_path / "nowhere", "cannot be read: No such file or directory; expected a PEM"),
        (tmp_path, "cannot be read: Is a directory"),
        (text, "holds no such thing; expected a PEM certificate"),
        (damaged, "is damaged"),
    ):
        with pytest.raises(SecurityError) as caught:
            TlsFiles(cert, text, None)
        assert str(caught.value).startswith(f"tls_cert: {cert} ")
        assert words in str(caught.value)


def test_a_key_that_is_none_or_encrypted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    cert.write_text("-----BEGIN CERTIFICATE-----\n")
    key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    monkeypatch.setattr("rootserve.server.security.tls._check_certificates", lambda *_: None)

    def load(self: ssl.SSLContext, certfile: object, keyfile: object, password: object) -> None:
        assert callable(password)
        password()
        raise ssl.SSLError

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load)
    with pytest.raises(SecurityError, match=r"is encrypted; expected .* without a password"):
        TlsFiles(cert, key, None)
    with pytest.raises(
        SecurityError, match=r"tls_key: .*c\.pem holds no such thing; expected a PEM"
    ):
        TlsFiles(cert, cert, None)


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--tls-cert", __file__], {}, "--tls-cert: came without tls_key"),
        (["--tls-key", __file__], {}, "--tls-key: came without tls_cert"),
        (
            [],
            {"ROOTSERVE_TLS_CLIENT_CA": __file__},
            "ROOTSERVE_TLS_CLIENT_CA: came without tls_cert",
        ),
        (["--token-file", "/nowhere"], {}, "--token-file: /nowhere cannot be read: No such file"),
        (["--max-concurrent-streams", "0"], {}, "--max-concurrent-streams: '0' came"),
        (["--max-connection-age-s", "-1"], {}, "--max-connection-age-s: '-1' came"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    arguments: list[str], environment: dict[str, str], words: str
) -> None:
    with pytest.raises(OptionError) as caught:
        read_settings(arguments, environment)
    assert words in str(caught.value)


def test_limits_become_options_of_grpc() -> None:
    arguments = ["--max-concurrent-streams", "7", "--max-connection-age-s", "1.5", "--drain-s", "2"]
    options = dict(server_options(read_settings(arguments, {})))
    assert options["grpc.max_concurrent_streams"] == 7
    assert options["grpc.max_connection_age_ms"] == 1500
    assert options["grpc.max_connection_age_grace_ms"] == 2000
    assert "grpc.max_connection_age_ms" not in dict(server_options(read_settings([], {})))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("gpu-1.example", False),
    ],
)  # fmt: skip
def test_the_loopback_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("client_ca", [False, True])
@pytest.mark.parametrize("tokens", [False, True])
def test_what_is_exposed_is_told(tls: bool, client_ca: bool, tokens: bool) -> None:
    protection = {"has_tls": tls, "has_client_ca": client_ca, "has_tokens": tokens}
    assert exposure_warning("127.0.0.1", **protection) is None
    warning = exposure_warning("0.0.0.0", **protection)
    if not tokens and not client_ca:
        assert warning is not None
        assert "0.0.0.0 without tokens or client certificates" in warning
    elif tokens and not tls:
        assert warning is not None
        assert "without TLS" in warning
    else:
        assert warning is None


def test_a_status_belongs_to_each_reason() -> None:
    assert grpc.StatusCode[Reason.UNAUTHENTICATED.name] is grpc.StatusCode.UNAUTHENTICATED
    assert grpc.StatusCode[Reason.PERMISSION_DENIED.name] is grpc.StatusCode.PERMISSION_DENIED
