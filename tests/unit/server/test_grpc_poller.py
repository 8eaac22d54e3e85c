"""gRPC is told how to read the sockets before it is imported, and only where it understands."""

import subprocess
import sys

import pytest

from server.grpc_poller import have_the_waiting_thread_read


@pytest.mark.parametrize("release", ["1.78.2", "1.81.1", "1.82.3"])
def test_gets_the_poller_where_there_is_a_choice(release: str) -> None:
    environment: dict[str, str] = {}
    have_the_waiting_thread_read(environment, release)
    assert environment == {"GRPC_EXPERIMENTS": "-event_engine_poller_for_python"}


@pytest.mark.parametrize("release", ["1.83.0", "1.100.1", "2.0.0rc1"])
def test_leaves_a_release_alone_that_has_no_choice(release: str) -> None:
    environment: dict[str, str] = {}
    have_the_waiting_thread_read(environment, release)
    assert not environment


def test_leaves_what_the_operator_chose() -> None:
    environment = {"GRPC_EXPERIMENTS": ""}
    have_the_waiting_thread_read(environment, "1.81.1")
    assert environment == {"GRPC_EXPERIMENTS": ""}


@pytest.mark.parametrize("module", ["server.main", "client.cli"])
def test_the_programs_import_grpc_only_after_that(module: str) -> None:
    code = f"import sys, {module}; assert 'grpc' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
