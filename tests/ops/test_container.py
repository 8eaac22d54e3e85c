"""The container without a container engine: what the files say, and the service run as they say it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from tritonclient.grpc import service_pb2_grpc

from rootserve.server.options import read_settings
from rootserve.server.settings import Settings
from tests.support.certificates import make_certificates
from tests.support.confinement import IMPORT_PATH, NEEDS_CONFINEMENT, confined_to
from tests.support.server_process import PATIENCE_S, infer_request, logits, plain_images, wait_until

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "ops" / "container" / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"
MODEL = "nin-root-16"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", DOCKERFILE.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def last(name: str) -> str:
    return [value for instruction, value in instructions() if instruction == name][-1]


def exec_form(value: str) -> list[str]:
    command: list[str] = json.loads(value[value.index("[") :])
    return command


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in last("ENV").split())


def copied() -> list[str]:
    """What the image is made of."""
    own = [v for name, v in instructions() if name == "COPY" and not v.startswith("--from")]
    return [path for value in own for path in value.split()[:-1]]


def test_the_image_has_two_stages_and_a_user_that_is_nobody() -> None:
    assert [name for name, _ in instructions()].count("FROM") == 2
    uid, _, gid = last("USER").partition(":")
    assert uid == gid == "10001"
    assert last("STOPSIGNAL") == "SIGTERM"
    environment = image_environment()
    assert environment["ROOTSERVE_HOST"] == "0.0.0.0"
    assert last("EXPOSE").split() == [
        environment["ROOTSERVE_PORT"],
        environment["ROOTSERVE_METRICS_PORT"],
    ]


def test_the_context_has_what_is_copied_and_makes_the_wheel(tmp_path: Path) -> None:
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    for path in copied():
        assert f"!{path}" in kept, f"{path} is copied but not sent to the engine"
        source, target = ROOT / path, tmp_path / "context" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    (wheel,) = WheelBuilder(str(tmp_path / "context")).build(directory=str(tmp_path))
    assert Path(wheel).stat().st_size > 1_000_000, "with the weights"


@pytest.mark.skipif(
    not shutil.which("docker-compose"),
    reason="docker-compose is not installed (Debian: apt-get install docker-compose)",
)
@pytest.mark.parametrize(
    "profile", [(), ("--profile", "gpu"), ("--profile", "cluster")], ids=["cpu", "gpu", "cluster"]
)
def test_the_compose_file_is_sound(profile: tuple[str, ...]) -> None:
    command = ["docker-compose", "--file", str(COMPOSE), *profile, "config"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    services = yaml.safe_load(result.stdout)["services"]
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))
        if "build" in service:
            assert service["mem_limit"]
            assert service["pids_limit"] == 1024
    assert services["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"


def test_servers_have_weights_to_read_and_a_cache_that_outlives_them() -> None:
    compose = yaml.safe_load(COMPOSE.read_text())
    (created,) = [v for name, v in instructions() if name == "RUN" and "useradd" in v]
    for service in compose["services"].values():
        if "build" not in service or "entrypoint" in service:  # Envoy reads no weights
            continue
        weights, cache = service["volumes"]
        assert weights == "${WEIGHTS_DIR:-./rootmodels/pretrained}:/weights:ro"
        name, _, folder = cache.partition(":")
        assert name in compose["volumes"]
        environment = service["environment"]
        assert (environment["ROOTSERVE_WEIGHTS"], environment["ROOTSERVE_CACHE"]) == (
            "/weights",
            folder,
        )
        assert f"--owner=10001 --group=10001 {folder}" in created, "a volume takes its owner"
    assert (ROOT / "rootmodels" / "pretrained" / f"{MODEL}.safetensors").exists()


def test_the_variables_of_image_and_compose_file_are_settings() -> None:
    for service in yaml.safe_load(COMPOSE.read_text())["services"].values():
        if "build" in service and "entrypoint" not in service:
            given = {**image_environment(), **service["environment"], "ROOTSERVE_MODELS": ""}
            settings = read_settings([], given)
            assert (settings.host, settings.port, settings.models) == ("0.0.0.0", 8001, ())
            assert {f"ROOTSERVE_{key.upper()}" for key in Settings.model_fields} >= {
                key for key in given if key.startswith("ROOTSERVE_")
            }


def test_files_that_the_compose_file_mounts_exist() -> None:
    for service in yaml.safe_load(COMPOSE.read_text())["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists(), source
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).exists()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Stands for the container's /tmp; other users can get at it."""
    made = Path(tempfile.mkdtemp(prefix="rootserve-container-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def environment_of(folder: Path) -> dict[str, str]:
    """That of the image alone, on free ports of the loopback, with this environment's programs."""
    own = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "ROOTSERVE_HOST": "127.0.0.1",
        "ROOTSERVE_PORT": "0",
        "ROOTSERVE_METRICS_PORT": "0",
        "ROOTSERVE_DEVICE": "cpu",
        "ROOTSERVE_MODELS": MODEL,
        "PYTHONPATH": IMPORT_PATH,
    }
    return {**image_environment(), **own}


def health_check(environment: dict[str, str], metrics_port: str) -> int:
    program, script = exec_form(last("HEALTHCHECK"))
    assert (program, script) == ("python", "/opt/rootserve/healthcheck.py")
    command = [program, str(ROOT / "ops" / "container" / "healthcheck.py")]
    environment = {**environment, "ROOTSERVE_METRICS_PORT": metrics_port}
    return subprocess.run(command, env=environment, check=False, timeout=60).returncode


@pytest.mark.parametrize("confined", [False, pytest.param(True, marks=NEEDS_CONFINEMENT)])
def test_start_command_health_check_user_and_stop(folder: Path, *, confined: bool) -> None:
    environment = environment_of(folder)
    command = exec_form(last("ENTRYPOINT"))
    uid = int(last("USER").partition(":")[0]) if confined else os.geteuid()
    if confined:
        command = [*confined_to(folder, uid), *command]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.fullmatch(r"listening grpc=(\S+) metrics=\S+:(\d+)\n", line)
        assert match, line + (folder / "log").read_text()
        address, metrics_port = match.groups()
        wait_until(lambda: health_check(environment, metrics_port) == 0)
        with grpc.insecure_channel(address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            answer = stub.ModelInfer(infer_request(MODEL, plain_images(2)), timeout=60)
        assert logits(answer).shape == (2, 10)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(rf"^Uid:\t{uid}\t{uid}\t", status, re.MULTILINE), status
        if confined:
            assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
            assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert health_check(environment, metrics_port) == 1
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert "Traceback" not in (folder / "log").read_text()


@contextmanager
def started(
    command: list[str], environment: dict[str, str], folder: Path
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service that ``command`` becomes, and the line in which it says where it listens; ended behind."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening "), line + (folder / "log").read_text()
        yield process, line
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.mark.parametrize(
    ("host", "secured"),
    [
        ("127.0.0.1", True),
        ("0.0.0.0", False),
        ("127.0.0.2", False),
        ("localhost", False),
        ("::", True),
        ("::1", False),
        ("[::1]", False),
    ],
)
def test_the_health_check_finds_the_service_on_any_address_with_tls_and_tokens_too(
    folder: Path, host: str, *, secured: bool
) -> None:
    environment = {**environment_of(folder), "ROOTSERVE_HOST": host, "ROOTSERVE_ENGINE": "fake"}
    if secured:
        certificates = make_certificates(folder)
        tokens = folder / "tokens.toml"
        tokens.touch(0o600)
        tokens.write_text(
            '[[token]]\nname = "a"\nsecret = "a-0123456789abcdef"\ngroups = ["health"]\n'
        )
        environment |= {
            "ROOTSERVE_TOKEN_FILE": str(tokens),
            "ROOTSERVE_TLS_CERT": str(certificates.path("server.crt")),
            "ROOTSERVE_TLS_KEY": str(certificates.path("server.key")),
            "ROOTSERVE_TLS_CLIENT_CA": str(certificates.path("ca.crt")),
        }
    with started(exec_form(last("ENTRYPOINT")), environment, folder) as (_, line):
        metrics_port = line.rpartition(":")[2].strip()
        wait_until(lambda: health_check(environment, metrics_port) == 0)
    assert health_check(environment, metrics_port) == 1


IN_A_CONTAINER = [
    "unshare",
    "--mount",
    "--pid",
    "--net",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "bash",
    "-c",
]
IMAGE = """
set -e
ip link set lo up
mount -t tmpfs tmpfs /opt
mkdir /opt/rootserve
cp "$0" /opt/rootserve/healthcheck.py
exec "$@"
"""


def can_be_contained() -> bool:
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        return False
    script = "ip link set lo up && mount -t tmpfs tmpfs /opt"
    return (
        subprocess.run([*IN_A_CONTAINER, script], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(
    not can_be_contained(),
    reason="only root can give the service processes and a network of its own",
)
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--host", "::1", "--metrics-port", "9001"],
        ["--host=127.0.0.3", "--metrics-port=9001"],
        ["--config", "settings.toml"],
    ],
    ids=" ".join,
)
def test_the_health_check_as_it_is_written_knows_the_arguments_of_the_container(
    folder: Path, arguments: list[str]
) -> None:
    """In namespaces of its own: the service is process 1, and its ports are those of the image."""
    (folder / "settings.toml").write_text('host = "127.0.0.4"\nmetrics_port = 9002\n')
    environment = {**environment_of(folder), **image_environment(), "ROOTSERVE_ENGINE": "fake"}
    environment["PATH"] = environment_of(folder)["PATH"]
    if "--config" in arguments:
        del environment["ROOTSERVE_HOST"], environment["ROOTSERVE_METRICS_PORT"]
    script = str(ROOT / "ops" / "container" / "healthcheck.py")
    command = [*IN_A_CONTAINER, IMAGE, script, *exec_form(last("ENTRYPOINT")), *arguments]
    with started(command, environment, folder) as (process, _):
        (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        check = ["nsenter", "--target", first, "--mount", "--pid", "--net", f"--wdns={folder}"]
        check += exec_form(last("HEALTHCHECK"))

        def asked() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                check, env=environment, capture_output=True, text=True, timeout=60, check=False
            )

        wait_until(lambda: asked().returncode == 0)
        assert asked().stdout == "ready\n"
        # Unshare does not hand a signal on.
        os.kill(int(first), signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
