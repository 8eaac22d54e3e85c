"""Files for clusters, made of others: `python -m scripts.cluster_files`; --check that they are current.

Envoy's configuration, and Prometheus's rules as the Prometheus operator has them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from rootserve.cluster.envoy_config import configuration
from rootserve.cluster.options import EnvoyOptions, parse_servers
from scripts.generated import write_or_check

ROOT = Path(__file__).parents[1]
ENVOY = ROOT / "ops/envoy/envoy.yaml"
RULES = ROOT / "ops/kubernetes/overlays/monitoring/rules.yaml"
_COMMAND = "rootserve-cluster envoy --servers rootserve:8001 --host 0.0.0.0"
_WRITTEN = (
    "# Written by scripts/cluster_files.py of ops/prometheus/rules: change those, not this.\n"
)


def build() -> dict[Path, str]:
    """Each file with what it is to hold."""
    options = EnvoyOptions(parse_servers("rootserve:8001"), host="0.0.0.0")  # noqa: S104 - in a container
    groups = [
        group
        for path in sorted((ROOT / "ops/prometheus/rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    rules = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "rootserve", "labels": {"app.kubernetes.io/part-of": "rootserve"}},
        "spec": {"groups": groups},
    }
    text = yaml.safe_dump(rules, sort_keys=False, width=1000)
    return {ENVOY: configuration(options, _COMMAND), RULES: _WRITTEN + text}


def main() -> int:
    """Write them, or check them."""
    return write_or_check(build(), "python -m scripts.cluster_files", __doc__)


if __name__ == "__main__":
    sys.exit(main())
