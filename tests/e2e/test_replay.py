"""What a live server's scheduler decided, told to another scheduler call by call, is decided again."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from rootserve.client.simulation.replay import replay
from rootserve.server.core.scheduler import Scheduler
from tests.support.recorded_service import recorded
from tests.support.server_process import ServerProcess

MODELS = "nin-orig,nin-root-4,nin-root-16"


def test_a_live_run_is_decided_again_when_it_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    arguments = ("--engine", "fake", "--device", "cpu", "--models", MODELS)
    within = (sys.executable, "-m", "tests.support.recorded_service", str(path))
    with ServerProcess(*arguments, within=within) as server:
        server.wait_ready()
        load = ["load", "-r", "150", "-d", "2", "--warmup", "0", "--server", server.address]
        wanted = ["--deadline-ms", "1=1,20=2,500=1", "--accuracy-floor", "0=2,0.9=1"]
        command = [sys.executable, "-m", "rootserve.client", *load, "-m", "nin-auto", *wanted]
        subprocess.run(command, capture_output=True, timeout=120, check=True)
    limits, calls = recorded(path)
    methods = Counter(call.method for call in calls)
    assert methods["offer"] >= 200
    assert methods["batch_done"] >= 50
    assert {"model_measured", "worker_ready", "family_served", "poll"} <= set(methods)
    assert replay(calls, Scheduler(limits)) is None
