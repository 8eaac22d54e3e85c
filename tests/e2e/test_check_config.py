"""--check-config: the settings, their sources, and every reason why a start would fail; nothing starts."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rootmodels.weights_info import PRETRAINED_DIR, weights_path

MODEL = "nin-root-16"


def check(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rootserve.server", "--check-config", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | (environment or {}),
    )


def findings(result: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """What was found about each thing: its level and its text."""
    _, checks = result.stdout.split("checks\n")
    rows = (line.split(maxsplit=2) for line in checks.splitlines())
    return {what: (level, text) for level, what, text in rows}


def test_each_setting_is_told_with_its_source(tmp_path: Path) -> None:
    config = tmp_path / "rootserve.toml"
    config.write_text(f'models = ["{MODEL}"]\ndevice = "cpu"\nport = 1\n')
    arguments = ("--config", str(config), "--port", "0")
    result = check(*arguments, environment={"ROOTSERVE_METRICS_PORT": "0"})
    assert (result.returncode, result.stderr) == (0, "")
    rows = {
        line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line[:1] == " "
    }
    assert rows["port"] == ["0", "--port"]
    assert rows["metrics_port"] == ["0", "ROOTSERVE_METRICS_PORT"]
    assert rows["device"] == ["cpu", "device", "in", str(config)]
    assert rows["max_batch_rows"] == ["32", "default"]
    found = findings(result)
    assert {level for level, _ in found.values()} == {"ok"}
    assert f"{MODEL} version 1 " in found["models"][1]


def test_several_folders_are_told_as_they_may_be_given(tmp_path: Path) -> None:
    folders = ("--weights", "shipped", "--weights", str(tmp_path))
    ports = ("--port", "0", "--metrics-port", "0")
    result = check(*folders, "--models", MODEL, "--device", "cpu", *ports)
    (line,) = [line for line in result.stdout.splitlines() if line.split()[:1] == ["weights"]]
    assert line.split()[1] == f"{PRETRAINED_DIR}{os.pathsep}{tmp_path}"
    assert findings(result)["models"][1].startswith(
        f"{PRETRAINED_DIR}{os.pathsep}{tmp_path}: {MODEL} "
    )


def test_every_reason_is_told_at_once(tmp_path: Path) -> None:
    shutil.copy(weights_path(MODEL), tmp_path / "nin-orig.safetensors")
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("[[token]]\n")
    tokens.chmod(0o644)
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    arguments = ["--weights", str(tmp_path), "--token-file", str(tokens)]
    arguments += ["--tls-cert", str(broken), "--tls-key", str(broken), "--host", "192.0.2.1"]
    arguments += ["--datasets", f"cifar={tmp_path}/nowhere.parquet"]
    result = check(*arguments)
    assert result.returncode == 2
    found = findings(result)
    for what, words in {
        "models": "nin-orig.safetensors holds weights of nin-root-16",
        "tls": "holds no such thing; expected a PEM certificate",
        "tokens": str(tokens),
        "datasets": "nowhere.parquet",
        "port": "192.0.2.1:8001: Cannot assign requested address",
        "metrics": "192.0.2.1:8002: Cannot assign requested address",
    }.items():
        level, text = found[what]
        assert (level, words in text) == ("error", True), (what, text)


def test_a_cache_that_cannot_be_written_is_noted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    ports = ("--port", "0", "--metrics-port", "0")
    result = check("--models", MODEL, "--device", "cpu", *ports, "--cache", str(file / "cache"))
    assert result.returncode == 0
    level, text = findings(result)["cache"]
    assert level == "note"
    assert (
        text == f"cache {file}/cache: {file} is no folder; engines are measured anew at each start"
    )
    result = check("--models", MODEL, "--device", "cpu", *ports, "--cache", str(tmp_path / "cache"))
    assert "cache" not in findings(result)
    assert not (tmp_path / "cache").exists()


def test_a_port_that_is_in_use_is_no_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = check("--models", MODEL, "--device", "cpu", "--port", port, "--metrics-port", "0")
    assert result.returncode == 0
    assert findings(result)["port"] == (
        "note",
        f"127.0.0.1:{port} is in use, as it is while the service runs",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "http"], "--port: 'http' came"),
        (["--versions", "nin-orig"], "--versions: 'nin-orig' came, expected NAME=N"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before(arguments: list[str], words: str) -> None:
    result = check(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr
