"""The service where torch is not installed: it serves, and says of the rest why it does not."""

import os
import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest

from rootserve.v1 import analysis_pb2, analysis_pb2_grpc
from tests.support.server_process import ServerProcess, infer_request, plain_images, wait_until

MODEL = "nin-root-16"
# What Python says of a package that is not there.
ABSENT = 'raise ModuleNotFoundError("No module named \'torch\'", name="torch")'


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("absent")
    (folder / "torch.py").write_text(ABSENT)
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def server(environment: dict[str, str]) -> Iterator[ServerProcess]:
    with ServerProcess("--models", MODEL, "--device", "cpu", environment=environment) as started:
        yield started.wait_ready()


def test_it_serves(server: ServerProcess) -> None:
    answer = server.stub.ModelInfer(infer_request(MODEL, plain_images(3)), timeout=60)
    assert answer.parameters["engine"].string_param == "openvino"
    assert "torch" not in server.log()


def test_responses_are_not_analysed_and_it_says_what_to_install(server: ServerProcess) -> None:
    stub = analysis_pb2_grpc.AnalysisServiceStub(server.channel)
    options = analysis_pb2.DeriveOptions(results=[analysis_pb2.MATRIX_KIND_COVARIANCE])
    spec = analysis_pb2.AnalysisSpec(
        model=MODEL, options=options, client_images=analysis_pb2.ClientImages()
    )
    pixels = plain_images(8).tobytes()
    images = analysis_pb2.ImageChunk(rows=8, height=32, width=32, pixels=pixels)
    requests = (
        analysis_pb2.AnalyzeRequest(spec=spec),
        analysis_pb2.AnalyzeRequest(images=images),
    )
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Analyze(iter(requests), timeout=60))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "installed without torch" in caught.value.details()
    assert "install rootserve[server]" in caught.value.details()
    assert "Traceback" not in server.log()


def test_filters_and_times_of_layers_are_there(server: ServerProcess) -> None:
    stub = analysis_pb2_grpc.AnalysisServiceStub(server.channel)
    assert list(stub.GetFilters(analysis_pb2.GetFiltersRequest(model=MODEL), timeout=60))
    profile = analysis_pb2.GetProfileRequest(model=MODEL, measure=True)
    assert stub.GetProfile(profile, timeout=60).measurement.engine == "openvino"


def test_the_engine_torch_says_that_it_is_not_there(environment: dict[str, str]) -> None:
    options = ("--models", MODEL, "--engine", "torch", "--device", "cpu")
    with ServerProcess(*options, environment=environment) as server:
        wait_until(lambda: "cannot load" in server.log())
        with pytest.raises(grpc.RpcError) as caught:
            server.infer(MODEL, plain_images(1))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "No module named 'torch'" in caught.value.details()


def test_nothing_that_serves_imports_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None;"
        "import rootserve.server.main, rootserve.server.app, rootserve.server.workers.process,"
        "rootserve.server.analysis.process, rootserve.server.engines.openvino_cpu"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
