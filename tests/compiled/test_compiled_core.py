"""A wheel with a compiled core, as it would be installed: it decides what the source decides."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
_DECIDES = Path(__file__).with_name("decides.py")

# What knows the core and runs in a minute or two.
_TESTED = (
    "tests/unit/core",
    "tests/unit/client/test_simulation.py",
    "tests/unit/client/test_simulation_plan.py",
    "tests/integration/server/test_dispatcher.py",
    "tests/integration/server/test_dispatcher_families.py",
    "tests/e2e/test_auto.py",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HATCH_BUILD_HOOKS_ENABLE", "true")
        (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder))
    return Path(path)


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The wheel's content, to be imported from there."""
    folder = wheel.parent / "installed"
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder)
    return folder


def run(*command: str, path: Path | None) -> subprocess.CompletedProcess[str]:
    """Python with ``path`` before what is installed here."""
    env = {**os.environ, "PYTHONPATH": str(path)} if path else dict(os.environ)
    return subprocess.run(
        [sys.executable, *command], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_wheel_is_for_this_python_and_processor_and_has_the_source_too(wheel: Path) -> None:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert tag in wheel.name
    assert "any" not in wheel.name
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    core = "rootserve/server/core/"
    sources = {name for name in names if name.startswith(core) and name.endswith(".py")}
    compiled = {name.partition(".")[0] + ".py" for name in names if name.endswith(".so")}
    assert sources - compiled == {f"{core}__init__.py"}


def test_the_server_says_that_its_core_is_compiled(installed: Path) -> None:
    for path, expected in ((installed, "compiled"), (None, "python")):
        said = run("-m", "rootserve.server", "--version", path=path)
        assert f"core: {expected}" in said.stdout, said


def test_it_decides_the_same(installed: Path) -> None:
    compiled, interpreted = (run(str(_DECIDES), path=path) for path in (installed, None))
    assert compiled.returncode == interpreted.returncode == 0, compiled.stderr + interpreted.stderr
    told, expected = compiled.stdout.splitlines(), interpreted.stdout.splitlines()
    assert (told.pop(0), expected.pop(0)) == ("compiled", "python")
    assert len(expected) > 1000
    assert told == expected


def test_it_passes_the_tests_of_its_source(installed: Path) -> None:
    tested = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *_TESTED, path=installed)
    assert tested.returncode == 0, tested.stdout[-8000:]


def test_without_a_compiler_the_build_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HATCH_BUILD_HOOKS_ENABLE", "true")
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match="has this machine a C compiler") as caught:
        list(WheelBuilder(str(ROOT)).build(directory=str(tmp_path)))
    assert "no-such-compiler" in str(caught.value)
    assert not list(tmp_path.glob("rootserve-core-*"))
