"""A real Prometheus scrapes a real server: every query of the dashboard and of the rules has data."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.support.envoy import INSTALLED as ENVOY_INSTALLED
from tests.support.envoy import MISSING as ENVOY_MISSING
from tests.support.envoy import running_envoy
from tests.support.mixed_load import MixedLoad
from tests.support.prometheus import (
    CONFIG,
    INSTALLED,
    MISSING,
    ROOT,
    RULES,
    Prometheus,
    dashboard_panels,
    dashboard_queries,
    plain,
    running_prometheus,
)
from tests.support.server_process import ServerProcess, running_server, wait_until

pytestmark = [
    pytest.mark.skipif(not INSTALLED, reason=MISSING),
    pytest.mark.skipif(not ENVOY_INSTALLED, reason=ENVOY_MISSING),
]

TRAINED = ("nin-orig", "nin-root-16")
FAMILY = "nin-auto"
"""Of both."""
UNTRAINED = "resnet50-root-64"
"""No weights are shipped for it, and an alert is about such models."""
WINDOW = "10s"


def promtool(*arguments: str) -> str:
    result = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def rules() -> list[dict[str, str]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def vectors(expr: str) -> list[str]:
    """What an alert compares, without its thresholds: on a healthy server the rest must be there."""
    found = []
    for side in re.split(r"\s(?:and|or|[<>]=?|==)\s", " ".join(expr.split())):
        vector = side.strip()
        while vector.count("(") > vector.count(")"):
            vector = vector.removeprefix("(").strip()
        while vector.count(")") > vector.count("("):
            vector = vector.removesuffix(")").strip()
        vector = re.sub(r"^absent\((.*)\)$", r"\1", vector)
        if re.search(r"[a-z]", vector):
            found.append(vector)
    return found


@contextmanager
def scraped(tmp_path: Path) -> Iterator[tuple[ServerProcess, Prometheus]]:
    models = ",".join((*TRAINED, UNTRAINED))
    with (
        running_server("--engine", "fake", "--device", "cpu", "--models", models) as server,
        running_envoy([server.address]) as proxy,
        running_prometheus(server.metrics_address, tmp_path, proxy.metrics_address) as prometheus,
    ):
        yield server, prometheus


def test_configuration_and_rules_are_sound() -> None:
    assert "SUCCESS" in promtool("check", "config", str(CONFIG))
    promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES))


@pytest.mark.parametrize("path", sorted((ROOT / "tests/ops/rules").glob("*.yml")), ids=str)
def test_rules_do_what_their_tests_say(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", str(path))


def test_what_an_alert_compares_is_found() -> None:
    assert vectors("( a:b > 14.4 * 0.001 and c{d='e'} > 1 ) or absent(up) == 0") == [
        "a:b",
        "c{d='e'}",
        "up",
    ]
    assert vectors("a:b > 0.1 and c:d >= 10") == ["a:b", "c:d"]
    assert vectors("x < max_over_time(x[1d]) - 0.005") == ["x", "max_over_time(x[1d]) - 0.005"]


def test_under_load_every_query_of_the_dashboard_and_the_rules_has_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus = str(ROOT / "tests" / "support" / "fake_nvml")
    monkeypatch.setenv("PYTHONPATH", f"{fake_gpus}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    queries = {f"{q.panel} / {q.legend}": q.expr for q in dashboard_queries(WINDOW)}
    for rule in rules():
        if "record" in rule:
            queries[rule["record"]] = rule["record"]
        for number, vector in enumerate(vectors(rule["expr"])):
            queries[f"{rule.get('record') or rule['alert']} / {number}"] = vector
    with scraped(tmp_path) as (server, prometheus), MixedLoad(server, (*TRAINED, FAMILY)):

        def without_data() -> list[str]:
            return [name for name, expr in queries.items() if not has_data(prometheus, expr)]

        try:
            wait_until(lambda: not without_data())
        except AssertionError:
            pytest.fail(f"no data: {without_data()}")
        labels = {name for series in prometheus.get("series", **{"match[]": '{job="rootserve"}'})
                  for name in series.values()}  # fmt: skip
        assert "a-name-a-caller-made-up" not in labels


def has_data(prometheus: Prometheus, expr: str) -> bool:
    """Whether there is a value that is a number."""
    return any(sample["value"][1] != "NaN" for sample in prometheus.query(expr))


def test_on_an_idle_server_a_panel_without_data_says_why(tmp_path: Path) -> None:
    with scraped(tmp_path) as (_, prometheus):
        wait_until(lambda: len(prometheus.query("count_over_time(up[30s]) > 8")) > 0)
        for panel in dashboard_panels():
            has_some = any(
                has_data(prometheus, plain(target["expr"], WINDOW)) for target in panel["targets"]
            )
            reason = panel["fieldConfig"]["defaults"]["noValue"]
            assert has_some or reason.startswith(("No request", "All is well", "No GPU")), panel[
                "title"
            ]
        assert not prometheus.query('ALERTS{alertstate="firing"}')
