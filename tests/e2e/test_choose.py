"""`rootserve choose` against a real server: of two variants, the one that holds more is told."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.server_process import running_server

SERVED = "nin-orig,nin-root-16"


def test_a_choice_on_a_real_server(tmp_path: Path, sample_path: Path) -> None:
    file, page = tmp_path / "choice.json", tmp_path / "choice.html"
    # The fake engine computes at once, and says class 9 of every image.
    with running_server("--models", SERVED, "--engine", "fake", "--device", "cpu") as server:
        result = subprocess.run(
            [
                sys.executable, "-m", "rootserve.client", "choose", "--slo-p99-ms", "1000",
                "--minutes", "0.5", "--rate", "1", "--data", sample_path, "--json", file,
                "--html", page, "--server", server.address,
            ],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        models = subprocess.run(
            [sys.executable, "-m", "rootserve.client", "models", "--json", "--server", server.address],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(file.read_text())
    assert document["schema"] == "rootserve.choice/1"
    variants = {each["name"]: each for each in document["variants"]}
    assert sorted(variants) == SERVED.split(",")
    limits = {each["name"]: each["batch_rows"] for each in json.loads(models.stdout)}
    for name, variant in variants.items():
        assert variant["callers_requests_per_s"] > 0
        assert variant["compute_ms"] > 0
        assert variant["steps"], variant
        assert variant["engine"] == "fake"
        assert variant["batch_rows"] == limits[name] > 0
        assert (variant["accuracy"], variant["accuracy_images"]) == (0.1, 1000)
    assert limits["nin-root-2"] is None  # not served
    assert "holds 1 requests/s with p99 within 1000 ms" in " ".join(result.stdout.split())
    assert "<svg" in page.read_text()
