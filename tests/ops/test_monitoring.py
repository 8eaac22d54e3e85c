"""What an operator deploys agrees: catalogue, metrics page, dashboard, rules, runbooks, a real server."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from rootserve.server.observers.metrics_catalog import CATALOG, PROCESS_METRICS, Kind
from tests.support.mixed_load import MixedLoad
from tests.support.prometheus import DASHBOARD, ROOT, RULES, dashboard_panels
from tests.support.server_process import ServerProcess, running_server, wait_until

MODELS = ("nin-orig", "nin-root-16")
FAKE = ("--engine", "fake", "--device", "cpu", "--models", ",".join(MODELS))


@pytest.mark.parametrize(
    "command",
    [["-m", "scripts.metrics_page", "--check"], ["ops/grafana/dashboard.py", "--check"]],
    ids=["metrics page", "dashboard"],
)
def test_generated_files_are_current(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_every_panel_has_its_data_source_a_description_and_a_word_for_no_data() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    (source,) = yaml.safe_load(
        (ROOT / "ops/grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    for panel in dashboard_panels():
        assert panel["datasource"]["uid"] == source["uid"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["noValue"]
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == [
        "instance",
        "model",
        "worker",
    ]
    assert [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"] == [
        "Are callers served well?",
        "Are deadlines kept, and how accurately?",
        "Where does the time go?",
        "Batching",
        "Workers and devices",
        "Variants side by side",
        "Analysis",
        "GPUs",
        "Many servers behind a proxy",
    ]


def test_dashboard_and_rules_name_only_metrics_of_the_catalogue() -> None:
    known = set(PROCESS_METRICS) | {"up", "ALERTS"}
    for metric in CATALOG:
        suffixes = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        known |= {f"{metric.exposed_name}{suffix}" for suffix in suffixes}
    text = DASHBOARD.read_text() + "".join(path.read_text() for path in RULES)
    records = set(re.findall(r"record: (\S+)", text))
    used = set(re.findall(r"\b(?:rootserve|process|python|nv_gpu)[:_][\w:]+", text))
    assert used - known - records == set()


def test_every_alert_has_its_runbook() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE)
    alerts = re.findall(r"alert: (\w+)", (RULES[0].parent / "alerts.yml").read_text())
    assert headings == alerts
    links = re.findall(
        r"runbook_url: .*else }}docs/runbooks.md{{ end }}#(\w+)",
        (RULES[0].parent / "alerts.yml").read_text(),
    )
    assert links == [alert.lower() for alert in alerts]


def scrape(server: ServerProcess, path: str = "/metrics") -> str:
    request = urllib.request.Request(
        f"http://{server.metrics_address}{path}",
        headers={"Accept": "application/openmetrics-text; version=1.0.0"},
    )
    with urllib.request.urlopen(request) as page:
        return page.read().decode()


def test_a_server_exposes_the_whole_catalogue_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_gpus = str(ROOT / "tests" / "support" / "fake_nvml")
    monkeypatch.setenv("PYTHONPATH", f"{fake_gpus}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    arguments = (*FAKE, "--model-control", "explicit")
    with running_server(*arguments) as server, MixedLoad(server, MODELS) as load:
        wait_until(lambda: load.answered > 5)
        request = oip.RepositoryModelLoadRequest(model_name=MODELS[0])
        service_pb2_grpc.GRPCInferenceServiceStub(server.channel).RepositoryModelLoad(request)
        families = {
            family.name: family for family in text_string_to_metric_families(scrape(server))
        }
    catalogue = {metric.name: metric for metric in CATALOG}
    process = {name.removesuffix("_total").removesuffix("_info") for name in PROCESS_METRICS}
    assert set(families) - {"python_info"} == set(catalogue) | (process - {"python"})
    for name, metric in catalogue.items():
        family = families[name]
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)
        assert family.samples, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_a_draining_server_is_scraped_and_says_that_it_drains() -> None:
    server = ServerProcess(*FAKE, "--grace-s", "600").wait_ready()
    try:
        assert "rootserve_serving 1.0" in scrape(server)
        assert scrape(server, "/ready") == "ready\n"
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "rootserve_serving 0.0" in scrape(server))
        with pytest.raises(urllib.error.HTTPError, match="503"):
            scrape(server, "/ready")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 1, "the second signal ends it at once"
    finally:
        server.end(signal.SIGKILL)


def test_a_metrics_port_that_is_taken_ends_the_start_with_a_clear_word() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [
            sys.executable,
            "-m",
            "rootserve.server",
            "--port",
            "0",
            "--metrics-port",
            port,
            *FAKE,
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "rootserve-server: error: metrics_port: cannot listen on "
        f"127.0.0.1:{port}: Address already in use"
    )
