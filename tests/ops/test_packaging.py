"""What is installed: extras, programs, and the content of the wheel."""

import re
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]


def requirements(extra: str) -> set[str]:
    found = set()
    for line in metadata.requires("rootserve") or []:
        requirement, _, marker = line.partition(";")
        if not marker or f"'{extra}'" in marker.replace('"', "'"):
            match = re.match(r"[\w.-]+", requirement)
            assert match
            found.add(match.group().lower())
    return found


def test_the_client_and_serving_on_a_cpu_are_installed_without_torch() -> None:
    client = requirements("client")
    assert {"grpcio", "tritonclient", "typer", "pyarrow"} <= client
    assert not client & {"torch", "openvino", "safetensors", "uvloop"}
    serve = requirements("serve")
    assert {"openvino", "prometheus-client", "pyarrow"} <= serve
    assert not serve & {"torch", "matplotlib", "nvidia-ml-py"}
    assert requirements("server") == serve | {"torch"}


def test_ray_comes_with_its_own_extra_alone() -> None:
    assert {"ray", "torch", "typer", "pyarrow"} <= requirements("ray")
    for extra in ("client", "serve", "server", "train", "cluster"):
        assert "ray" not in requirements(extra)


def test_the_programs_have_their_names() -> None:
    programs = {entry.name: entry.value for entry in metadata.entry_points(group="console_scripts")}
    assert programs["rootserve"] == "rootserve.client.cli:main"
    assert programs["rootserve-cluster"] == "rootserve.cluster.cli:main"
    assert programs["rootserve-server"] == "rootserve.server.main:main"


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")))
    with zipfile.ZipFile(path) as wheel:
        return set(wheel.namelist())


def test_the_wheel_has_the_packages_the_stubs_and_the_weights(wheel_names: set[str]) -> None:
    for name in (
        "rootserve/client/cli.py",
        "rootserve/client/report/page.css",
        "rootserve/cluster/envoy.yaml.template",
        "rootmodels/pretrained/check-images.npz",
        "rootmodels/pretrained/nin-root-16.calibration.json",
        "rootmodels/pretrained/nin-root-16.safetensors",
        "rootserve/v1/catalog.proto",
        "rootserve/v1/catalog_pb2.py",
        "rootserve/v1/catalog_pb2_grpc.py",
        "rootserve/server/main.py",
    ):
        assert name in wheel_names
    tops = {name.partition("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"rootmodels", "rootserve"}
    assert {name.split("/")[1] for name in wheel_names if name.startswith("rootserve/")} == {
        "client",
        "cluster",
        "pictures",
        "server",
        "v1",
    }


def test_every_constraint_is_an_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", pin) for pin in pins)
    assert "torch==2.13.0" in pins
    assert "grpcio==1.81.1" in pins
