"""The unit of systemd: sound, hardened, and its own commands start a service that tells how it is."""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from rootmodels.weights_info import weights_path
from rootserve.server.options import read_options
from tests.support.server_process import wait_until
from tests.support.systemd_unit import (
    INSTALLED,
    UNIT,
    Manager,
    run,
    unit_command,
    unit_environment,
    unit_values,
)

MODEL = "nin-root-16"
ANALYZE = shutil.which("systemd-analyze")
needs_analyze = pytest.mark.skipif(
    ANALYZE is None, reason="systemd-analyze is not installed (Debian: apt-get install systemd)"
)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with programs that are there."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace(f"{INSTALLED}/rootserve-server", "/bin/true"))
    return path


@needs_analyze
def test_systemd_finds_the_unit_sound(unit: Path) -> None:
    result = run(["systemd-analyze", "verify", str(unit)], {"PATH": "/usr/bin:/bin"})
    ours = [line for line in result.stderr.splitlines() if UNIT.name in line]
    assert (result.returncode, ours) == (0, [])


@needs_analyze
def test_systemd_finds_it_little_exposed(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    result = run(command, {"PATH": "/usr/bin:/bin"})
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
    assert found is not None, result.stdout + result.stderr
    assert float(found[1]) <= 2.0


def test_the_example_configuration_has_only_settings_that_there_are(tmp_path: Path) -> None:
    example = (UNIT.parent / "rootserve.toml").read_text()
    for folder, text in (("as shipped", example), ("commented", commented_in(example))):
        path = tmp_path / f"{folder}.toml"
        path.write_text(text)
        options = read_options(["--config", str(path)], {})
        assert options.settings.model_control == "explicit"


def commented_in(text: str) -> str:
    """Its examples in force; their files, which settings must find, are one that is there."""
    text = re.sub(r"^#   ", "", text, flags=re.MULTILINE)
    return re.sub(r'"/etc/rootserve/[^"]+"', f'"{UNIT}"', text)


def test_its_commands_check_start_and_stop_a_service_that_tells_systemd(tmp_path: Path) -> None:
    shutil.copy(weights_path(MODEL), tmp_path)
    config = tmp_path / "rootserve.toml"
    lines = ['device = "cpu"', 'engine = "fake"', "port = 0", "metrics_port = 0"]
    config.write_text("\n".join([*lines, f'weights = "{tmp_path}"', 'models = ["nothing"]']))
    folders = {"/etc/rootserve": str(tmp_path), "/var/cache/rootserve": str(tmp_path / "cache")}
    environment = unit_environment(folders)

    refused = run(unit_command("ExecStartPre"), environment)
    assert refused.returncode == 2
    assert "'nothing' is not one of" in refused.stdout
    assert unit_values("Service", "RestartPreventExitStatus") == ["2"]
    config.write_text("\n".join([*lines, f'weights = "{tmp_path}"']))
    checked = run(unit_command("ExecStartPre"), environment)
    assert checked.returncode == 0, checked.stdout

    manager = Manager(tmp_path)
    command = unit_command("ExecStart")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment | manager.variables, stdout=subprocess.DEVNULL, stderr=log
        )
        try:
            manager.wait_for("READY=1")
            manager.wait_for("STATUS=serving 1 model")
            manager.told.clear()
            manager.wait_for("WATCHDOG=1")
            (child,) = children(process.pid)
            variables = Path(f"/proc/{child}/environ").read_bytes()
            assert b"NOTIFY_SOCKET" not in variables
            process.send_signal(signal.SIGTERM)
            manager.wait_for("STOPPING=1")
            assert process.wait(60) == 0, (tmp_path / "log").read_text()
            wait_until(lambda: not Path(f"/proc/{child}").exists())
        finally:
            process.kill()
            process.wait()
            manager.close()
    assert "INFO rootserve.server.app: stopped" in (tmp_path / "log").read_text()


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
