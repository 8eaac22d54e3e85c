"""On a machine with a CUDA device: the engine, and a server with one worker process per GPU."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rootmodels.analysis.capture import Capture
from rootmodels.analysis.layers import analysable_layers
from rootmodels.analysis.sums import make_plan
from rootmodels.cifar10 import read_cifar10
from rootmodels.variants import VARIANTS
from rootmodels.weights_info import weights_path
from rootserve.server.engines.base import LoadSpec, Precision
from rootserve.server.engines.choice import check_logits
from rootserve.server.engines.profiling import measure
from rootserve.server.engines.registry import ENGINES, get_loader, get_profiler_loader
from rootserve.server.engines.torch_eager import build_module
from rootserve.v1 import analysis_pb2 as pb
from rootserve.v1 import analysis_pb2_grpc
from tests.support.server_process import running_server


def spec(name: str, device: str) -> LoadSpec:
    path = weights_path(name)
    return LoadSpec(name, path if path.exists() else None, device, 0)


@pytest.mark.quick
@pytest.mark.parametrize("precision", ENGINES["cuda-graphs"].precisions)
def test_graphs_compute_real_images_in_each_precision(
    precision: Precision, sample_path: Path
) -> None:
    """Batches that fill a graph and that do not, of both types, in turn; tolerances as on the CPU."""
    images = read_cifar10(sample_path, "test").images[:400]
    wanted = spec("nin-root-16", "cuda:0")
    with torch.inference_mode():
        expected = build_module(spec("nin-root-16", "cpu"))(torch.from_numpy(images)).numpy()
    engine = get_loader("cuda-graphs")(replace(wanted, precision=precision))
    for rows in (1, 7, 32, 400, 3, 33):
        for batch in (images[:rows], images[:rows].astype(np.float32)):
            logits = engine.run(batch)
            check_logits(logits, expected[:rows], precision)
            assert (logits.argmax(1) != expected[:rows].argmax(1)).mean() <= 0.02


@pytest.mark.parametrize("engine", ["torch", "cuda-graphs"])
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_on_the_gpu_are_those_of_the_cpu(name: str, engine: str, sample_path: Path) -> None:
    images = read_cifar10(sample_path, "test").images[:32]
    if name.startswith("resnet50"):
        images = images.repeat(7, axis=2).repeat(7, axis=3)
    with torch.inference_mode():
        expected = build_module(spec(name, "cpu"))(torch.from_numpy(images)).numpy()
    loaded = get_loader(engine)(spec(name, "cuda:0"))
    for rows in (1, 7, 32):
        np.testing.assert_allclose(loaded.run(images[:rows]), expected[:rows], atol=1e-3)


@pytest.mark.quick
def test_a_server_has_one_worker_per_gpu_and_answers_from_it(sample_path: Path) -> None:
    data = read_cifar10(sample_path, "test")
    with running_server(
        "--device", "cuda", "--models", "nin-root-16", "--precision", "fp32"
    ) as server:
        assert len(server.worker_pids()) == torch.cuda.device_count()
        logits = np.concatenate(
            [server.infer("nin-root-16", data.images[n : n + 20]) for n in range(0, 200, 20)]
        )
    with torch.inference_mode():
        images = torch.from_numpy(data.images[:200])
        expected = build_module(spec("nin-root-16", "cpu"))(images).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_a_gpu_worker_that_dies_is_replaced() -> None:
    images = np.zeros((1, 3, 32, 32), np.uint8)
    with running_server("--device", "cuda:0", "--models", "nin-root-16") as server:
        before = server.infer("nin-root-16", images)
        (worker,) = server.worker_pids()
        os.kill(worker, signal.SIGKILL)
        server.wait_ready()
        np.testing.assert_array_equal(server.infer("nin-root-16", images), before)


@pytest.mark.quick
def test_sums_on_the_gpu_are_those_of_the_cpu(sample_path: Path) -> None:
    images = read_cifar10(sample_path, "test").images[:64]
    found = []
    for device in ("cpu", "cuda:0"):
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        module = build_module(spec("nin-root-4", "cpu")).to(device)
        capture = Capture(module, make_plan(analysable_layers(module.layers)))
        capture.add(images)
        found.append(capture.sums())
    for pair, moments in found[0].pairs.items():
        error = np.linalg.norm(found[1].pairs[pair].scatter - moments.scatter)
        assert error < 1e-5 * np.linalg.norm(moments.scatter), pair


def test_an_analysis_runs_on_the_gpu_beside_the_worker(sample_path: Path) -> None:
    arguments = ("--device", "cuda:0", "--models", "nin-root-4", "--datasets", f"a={sample_path}")
    with running_server(*arguments) as server:
        order = pb.AnalysisSpec(model="nin-root-4", dataset_images=pb.DatasetImages(name="a"))
        stub = analysis_pb2_grpc.AnalysisServiceStub(server.channel)
        answer = list(stub.Analyze(iter([pb.AnalyzeRequest(spec=order)]), timeout=100))
    best = {pair.pair.second: pair.best_groups for pair in answer[-1].summary.pairs}
    assert best["conv2a"] == 4
    assert best["conv3a"] == 2


@pytest.mark.quick
def test_each_layer_has_its_time_on_the_gpu() -> None:
    profiler = get_profiler_loader("torch")(spec("resnet50-root-64", "cuda:0"))
    images = np.zeros((4, 3, 224, 224), np.uint8)
    times = measure(profiler, images)
    assert times.layers.keys() == {
        layer.name for layer in spec("resnet50-root-64", "cpu").network().layers
    }
    assert all(quartiles.median > 0 for quartiles in times.layers.values())
    assert sum(quartiles.median for quartiles in times.layers.values()) < 2 * times.total.median
