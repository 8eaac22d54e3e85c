"""The image as it is run: ``python -m benchmarks.container --image rootserve:cpu``.

Starts the image as docker-compose.yml does (read-only root, no capabilities), on this machine's loopback,
with one model; tells how long it takes from ``docker run`` to ready, waits until Docker calls it healthy,
asks it, stops it, and tells how large the image is. It needs Docker, and the image, which
``docker-compose build rootserve`` makes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from rootmodels.processor import cpu_name
from rootserve.client import Client

PICTURE = Path(__file__).parents[1] / "examples" / "images" / "cat.png"
PATIENCE_S = 120.0
NAME = "rootserve-benchmark"


def docker(*words: str) -> str:
    """What the command says.

    Raises:
        CalledProcessError: if it fails.
    """
    done = subprocess.run(["docker", *words], check=True, capture_output=True, text=True)  # noqa: S607
    return done.stdout.strip()


def until(is_so: object, what: str) -> None:
    """Wait until the function ``is_so`` gives true.

    Raises:
        TimeoutError: if that takes too long.
    """
    assert callable(is_so)
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end_s:
            raise TimeoutError(f"not {what} after {PATIENCE_S:g} s")
        time.sleep(0.02)


def is_ready(port: int) -> bool:
    """Whether the service says that it is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def run_once(image: str, model: str, port: int) -> dict[str, object]:
    """Start, ask, and stop a container."""
    variables = {
        "ROOTSERVE_HOST": "127.0.0.1",
        "ROOTSERVE_PORT": str(port),
        "ROOTSERVE_METRICS_PORT": str(port + 1),
        "ROOTSERVE_DEVICE": "cpu",
        "ROOTSERVE_MODELS": model,
    }
    options = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "host"]  # noqa: S108
    options += ["--security-opt", "no-new-privileges:true"]
    for name, value in variables.items():
        options += ["--env", f"{name}={value}"]
    began_s = time.monotonic()
    docker("run", "--detach", "--name", NAME, *options, image)
    try:
        until(lambda: is_ready(port + 1), "ready")
        ready_s = time.monotonic() - began_s
        with Client(f"127.0.0.1:{port}") as client:
            answer = client.infer_encoded(model, [PICTURE.read_bytes()])
        state = "{{.State.Health.Status}}"
        until(lambda: docker("inspect", "--format", state, NAME) == "healthy", "healthy")
        docker("stop", "--time", "40", NAME)
        status = int(docker("inspect", "--format", "{{.State.ExitCode}}", NAME))
    finally:
        docker("rm", "--force", NAME)
    return {"ready_s": ready_s, "class": int(answer.logits.argmax()), "exit_status": status}


def main() -> int:
    """Run it; exit status 1 if a container did not end with status 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", default="rootserve:cpu")
    parser.add_argument("--model", default="nin-root-16")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--port", type=int, default=18001, help="and the one after it")
    args = parser.parse_args()
    size = int(docker("image", "inspect", "--format", "{{.Size}}", args.image))
    runs = [run_once(args.image, args.model, args.port) for _ in range(args.starts)]
    seconds = [float(str(run["ready_s"])) for run in runs]
    print(json.dumps(runs))
    print(
        f"{args.image}: {size / 1e6:.0f} MB; from docker run to ready {statistics.median(seconds):.1f} s "
        f"({min(seconds):.1f} to {max(seconds):.1f}, {len(seconds)} starts); {cpu_name()}, "
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    return 0 if all(run["exit_status"] == 0 for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
