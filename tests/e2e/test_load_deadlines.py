"""A load run with deadlines on a family: what its report tells is what the server's metrics tell."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.server_process import ServerProcess, running_server

FAMILY, BEST, FAST = "nin-auto", "nin-orig", "nin-root-16"
# Before a run, a request is tried with each choice that it asks for.
PROBES = 2


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    arguments = ("--engine", "fake", "--device", "cpu", "--models", f"{BEST},{FAST}")
    with running_server(*arguments) as started:
        yield started


def rootserve(server: ServerProcess, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = ["load", "--server", server.address, *map(str, arguments)]
    command = [sys.executable, "-m", "rootserve.client", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def counted(server: ServerProcess) -> dict[tuple[str, ...], float]:
    """The server's counters by name and label values."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
        text = page.read().decode()
    return {
        (sample.name.removeprefix("rootserve_"), *dict(sorted(sample.labels.items())).values()):
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


@pytest.mark.parametrize("way", [(), ("--streaming",)], ids=["calls", "streams"])
def test_the_report_agrees_with_the_servers_metrics(
    server: ServerProcess, tmp_path: Path, way: tuple[str, ...]
) -> None:
    path, page = tmp_path / "report.json", tmp_path / "report.html"
    before = counted(server)
    # Deadlines that are kept, that hardly are, and none; half of the requests want the best.
    ran = rootserve(
        server, "-m", FAMILY, "-r", 150, "-d", 3, "--warmup", 0, "--deadline-ms",
        "20000=3,3=2,none=1", "--accuracy-floor", "0=1,0.9=1", "--json", path, "--html", page, *way,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    report: dict[str, Any] = json.loads(path.read_text())
    after = counted(server)

    def grown(name: str, *labels: str) -> float:
        key = (name, *labels)
        return after[key] - before.get(key, 0.0)

    def offered(*results: str) -> float:
        return sum(
            grown("offered_total", deadline, FAMILY, result)
            for deadline in ("yes", "no")
            for result in results
        )

    attained, requests = report["attained"], report["requests"]
    assert requests > 200
    assert report["unfinished"] == 0
    assert attained["below_floor"] == 0

    # All that was due came, and the probes, each of which may have become anything.
    everything = offered("in_time", "late", "expired", "refused", "failed", "cancelled")
    assert everything == requests + PROBES
    answered = offered("in_time", "late")
    assert 0 <= answered - report["succeeded"] <= PROBES
    from_arrival = attained["attainment_from_arrival"] * requests
    assert -0.01 <= offered("in_time") - from_arrival <= PROBES + 0.01
    # Of a deadline that had passed on arrival the code alone does not tell that it was never admitted.
    lost = grown("refusals_total", FAMILY, "deadline_lost")
    broken = offered("late", "expired") + lost
    assert 0 <= broken - attained["promises_broken"] <= PROBES
    infeasible = grown("refusals_total", FAMILY, "deadline_infeasible")
    told = report["reasons"].get("DEADLINE_INFEASIBLE", 0)
    assert 0 <= infeasible - told <= PROBES

    assert set(attained["variants"]) <= {BEST, FAST}
    for variant, number in attained["variants"].items():
        computed = grown("variant_answers_total", variant, FAMILY)
        assert 0 <= computed - number <= PROBES
    # By the caller's clock no more is in time than by the server's, and of neither more accurate.
    accuracy = sum(grown("accuracy_in_time_total", deadline, FAMILY) for deadline in ("yes", "no"))
    assert attained["in_time"] <= from_arrival + 0.01
    assert attained["accuracy_goodput"] * requests <= accuracy + 0.01
    assert accuracy / offered("in_time") == pytest.approx(attained["mean_accuracy"], abs=0.01)
    assert "Variants that answered" in page.read_text()


def test_batches_are_held_to_what_was_predicted(server: ServerProcess) -> None:
    ran = rootserve(server, "-m", FAMILY, "-c", 4, "-d", 1, "--warmup", 0)
    assert ran.returncode == 0, ran.stderr
    found = counted(server)
    batches = sum(found["batch_rows_count", variant] for variant in (BEST, FAST))
    predicted = sum(found["prediction_ratio_count", variant] for variant in (BEST, FAST))
    assert 0 < predicted <= batches


def test_a_single_model_is_measured_by_the_accuracy_of_its_weights(
    server: ServerProcess, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    ran = rootserve(
        server, "-m", BEST, "-c", 2, "-d", 2, "--warmup", 0, "--deadline-ms", 20_000,
        "--slo-attainment", 0.99, "--json", path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    report = json.loads(path.read_text())
    accuracy = report["server"]["model"]["accuracy"]
    assert report["attained"]["attainment"] == 1.0
    assert report["attained"]["accuracy_goodput"] == pytest.approx(accuracy)
    assert report["attained"]["variants"] == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--accuracy-floor", 0.999), "parameter accuracy_floor: 0.999 came"),
        (("--variants", "nin-root-4"), "parameter variants"),
    ],
)
def test_what_nothing_can_answer_is_told_before_the_load(
    server: ServerProcess, arguments: tuple[object, ...], words: str
) -> None:
    ran = rootserve(server, "-m", FAMILY, "-c", 1, "-d", 1, *arguments)
    assert ran.returncode == 3, ran.stdout
    assert words in " ".join(ran.stderr.split())
