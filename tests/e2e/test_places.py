"""The service in places that lack something: it serves, or says plainly why it does not."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from rootserve.server.machine import usable_processors
from tests.support.confinement import IMPORT_PATH, NEEDS_CONFINEMENT, confined_to
from tests.support.server_process import (
    PATIENCE_S,
    ServerProcess,
    infer_request,
    logits,
    plain_images,
    running_server,
    wait_until,
)

ROOT = Path(__file__).parents[2]
MODEL = "nin-root-16"
SERVED = ("--models", MODEL, "--device", "cpu")
NOBODY = 54321
"""A user that no list of users knows."""


def check_it_serves(server: ServerProcess) -> None:
    server.wait_ready()
    assert server.infer(MODEL, plain_images(2)).shape == (2, 10)
    assert f"{MODEL} is warm (openvino " in server.log()


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that another user can get at."""
    made = Path(tempfile.mkdtemp(prefix="rootserve-place-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@NEEDS_CONFINEMENT
def test_an_unknown_user_without_a_home_and_with_nothing_to_write_to(folder: Path) -> None:
    assert subprocess.run(["getent", "passwd", str(NOBODY)], check=False).returncode != 0
    within = ["env", "-i", f"PYTHONPATH={IMPORT_PATH}"]
    command = [*confined_to(folder, NOBODY), "bash", "-c", 'cd / && exec "$@"', "bash", *within]
    path = {"PATH": os.environ["PATH"]}
    with ServerProcess(*SERVED, within=command, environment=path) as server:
        check_it_serves(server)


@NEEDS_CONFINEMENT
@pytest.mark.parametrize("options", ["ro,size=4k", "size=64m"])
def test_batches_need_no_dev_shm(options: str) -> None:
    mount = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    large = ("--models", f"{MODEL},resnet50-root-8", "--max-batch-rows", "256")
    within = ("unshare", "--mount", "bash", "-c", mount, "bash")
    with ServerProcess(*SERVED[2:], *large, within=within) as server:
        server.wait_ready()
        assert server.infer(MODEL, plain_images(256)).shape == (256, 10)


NO_IPV6 = """
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
exec "$@"
"""
# Runs where there is a loopback alone, without IPv6: client and server, which nobody outside reaches.
SERVE_AND_ASK = """
import fcntl, socket, struct, sys
from tests.e2e.test_places import SERVED, check_it_serves
from tests.support.server_process import ServerProcess
SIOCSIFFLAGS, UP_AND_RUNNING = 0x8914, 0x41
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", UP_AND_RUNNING))
with ServerProcess(*SERVED, "--host", sys.argv[1]) as server:
    check_it_serves(server)
"""


@NEEDS_CONFINEMENT
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_no_ipv6(host: str) -> None:
    within = ["unshare", "--net", "bash", "-c", NO_IPV6, "bash"]
    command = [*within, sys.executable, "-c", SERVE_AND_ASK, host]
    subprocess.run(command, check=True, cwd=ROOT, timeout=PATIENCE_S)


@contextmanager
def processor_limit(processors: float) -> Iterator[Path]:
    """The file by which a process enters a control group with so many processors' time."""
    version_2, version_1 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")
    parent = version_1 if (version_1 / "cpu.cfs_quota_us").exists() else version_2
    group = parent / f"rootserve-test-{os.getpid()}"
    quota = round(processors * 100_000)
    try:
        group.mkdir()
        if parent == version_1:
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} 100000")
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield group / "cgroup.procs"
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_a_limit_of_time_bounds_the_workers_and_pins_none() -> None:
    """Half a processor of several: one worker, which may move to whichever is free."""
    numbers = usable_processors().numbers
    if len(numbers) < 2:
        pytest.skip("with one processor, a limit of time leaves nothing to choose")
    with processor_limit(0.5) as entrance:
        within = ("bash", "-c", f'echo $$ > {entrance} && exec "$@"', "bash")
        with ServerProcess(*SERVED, "--optimize-for", "throughput", within=within) as server:
            check_it_serves(server)
            (worker,) = server.worker_pids()
            assert os.sched_getaffinity(worker) == set(numbers)
            assert b"--threads\x001\x00" in Path(f"/proc/{worker}/cmdline").read_bytes()


def test_few_file_descriptors_and_more_callers_than_those() -> None:
    """Who is connected is served, and so is everyone again once the others have gone."""
    with running_server(*SERVED) as server, ExitStack() as crowd:
        check_it_serves(server)
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (256, hard))
        host, port = server.address.rsplit(":", 1)
        for _ in range(300):
            crowd.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_S))
        open_now = Path(f"/proc/{server.process.pid}/fd")
        wait_until(lambda: len(list(open_now.iterdir())) == 256)
        check_it_serves(server)
        crowd.close()
        with grpc.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = infer_request(MODEL, plain_images(1))
            answer = stub.ModelInfer(request, timeout=PATIENCE_S, wait_for_ready=True)
        assert logits(answer).shape == (1, 10)
        with urllib.request.urlopen(f"http://{server.metrics_address}/ready", timeout=60) as ready:
            assert ready.status == 200


def test_as_many_file_descriptors_as_are_permitted() -> None:
    within = ("bash", "-c", 'ulimit -Sn 100 && exec "$@"', "bash")
    with ServerProcess(*SERVED, within=within) as server:
        check_it_serves(server)
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    assert 100 < soft == hard


def test_openvino_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another engine computes, slower, and the log warns of it."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['openvino'] = None")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with running_server(*SERVED, "--precision", "fp32") as server:
        assert server.infer(MODEL, plain_images(2)).shape == (2, 10)
        (warning,) = [line for line in server.log().splitlines() if " WARNING " in line]
    assert f"{MODEL} is warm (torch fp32" in warning
    assert "not openvino fp32: " in warning


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "2>/dev/full"])
def test_without_standard_streams(closed: str) -> None:
    within = ("bash", "-c", f'exec "$@" {closed}', "bash")
    with ServerProcess(*SERVED, within=within) as server:
        server.wait_ready()
        assert server.infer(MODEL, plain_images(2)).shape == (2, 10)
        for pid in (server.process.pid, *server.worker_pids()):
            # Nothing else has got the number: what libraries say there would go into it.
            where = str(Path(f"/proc/{pid}/fd/2").readlink())
            assert where == ("/dev/full" if "full" in closed else "/dev/null")


@pytest.mark.parametrize("target", ["/dev/full", "&-"])
def test_nobody_reads_where_it_listens(target: str) -> None:
    """It serves all the same: a supervisor may have closed its end of the pipe."""
    within = ["bash", "-c", f'exec "$@" >{target}', "bash"]
    command = [
        *within,
        sys.executable,
        "-m",
        "rootserve.server",
        "--port",
        "0",
        "--metrics-port",
        "0",
    ]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, *SERVED], stderr=log, cwd=ROOT)
        try:
            wait_until(lambda: "cpu-0 is ready" in read(log.fileno()) or process.poll() is not None)
            process.terminate()
            assert process.wait(PATIENCE_S) == 0, read(log.fileno())
        finally:
            process.kill()
            process.wait()
        assert ("standard output: No space left" in read(log.fileno())) is ("full" in target)


def read(number: int) -> str:
    return os.pread(number, os.fstat(number).st_size, 0).decode()
