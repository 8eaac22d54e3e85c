"""Processes that a test waits for in vain are ended; those that it shares with others later."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.time_limit import descendants, time_limit

ENDED = -9


@pytest.fixture
def shared() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_what_runs_too_long_is_ended_with_all_it_has_started(
    shared: subprocess.Popen[bytes],
) -> None:
    lines: list[str] = []
    with time_limit(lines.append, limit_s=0.3):
        command = ["bash", "-c", "sleep 600 & echo $!; wait"]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert run.returncode == ENDED
    assert int(run.stdout) not in descendants()
    assert run.stdout.strip() in lines[0]
    assert len(lines) == 1
    assert shared.poll() is None


def test_what_was_there_before_is_ended_last(shared: subprocess.Popen[bytes]) -> None:
    lines: list[str] = []
    with time_limit(lines.append, limit_s=0.1, mercy_s=0.1):
        assert shared.wait() == ENDED
    assert len(lines) == 2


def test_what_ends_in_time_is_left_alone() -> None:
    lines: list[str] = []
    with time_limit(lines.append, limit_s=60.0):
        assert subprocess.run(["true"], check=False).returncode == 0
    assert not lines
