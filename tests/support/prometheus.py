"""A real Prometheus for tests: with the shipped configuration, aimed at one server."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "ops" / "prometheus" / "prometheus.yml"
RULES = sorted((ROOT / "ops" / "prometheus" / "rules").glob("*.yml"))
DASHBOARD = ROOT / "ops" / "grafana" / "dashboards" / "rootserve.json"
INSTALLED = bool(shutil.which("prometheus") and shutil.which("promtool"))
MISSING = "prometheus and promtool are not installed (Debian: apt-get install prometheus)"
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel."""

    panel: str
    legend: str
    expr: str


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running one."""

    address: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The vector that ``expr`` gives now."""
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found

    def get(self, path: str, **parameters: object) -> Any:
        """The data of an answer of the HTTP API.

        Raises:
            AssertionError: with what Prometheus says of a bad query.
        """
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error


@contextmanager
def running_prometheus(target: str, folder: Path, proxy: str = "") -> Iterator[Prometheus]:
    """Scrapes ``target``, "host:port", and ``proxy``; applies the rules, twice a second."""
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(path) for path in RULES]
    for job, address in zip(config["scrape_configs"], (target, proxy), strict=True):
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [address] if address else []}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address={address}", "--enable-feature=exemplar-storage"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_ready(address, process, folder / "prometheus.log")
            yield Prometheus(address)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def dashboard_panels() -> list[dict[str, Any]]:
    """Every panel of the dashboard that asks something, those in rows that are folded included."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    folded = [inner for panel in panels for inner in panel.get("panels") or ()]
    return [panel for panel in [*panels, *folded] if panel["type"] != "row"]


def dashboard_queries(window: str) -> list[Query]:
    """Every query of the dashboard, its variables at "All" and its windows of ``window``."""
    return [
        Query(panel["title"], target["legendFormat"], plain(target["expr"], window))
        for panel in dashboard_panels()
        for target in panel["targets"]
    ]


def plain(expr: str, window: str) -> str:
    """What Grafana makes of a query."""
    for name, value in {
        "$instance": ".*",
        "$model": ".*",
        "$worker": ".*",
        "$__rate_interval": window,
    }.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def _wait_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"http://{address}/-/ready").close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"not ready: {log.read_text()}")
