"""Every engine computes what the module computes."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch

from rootmodels.processor import cpu_computes_bf16
from rootmodels.weights_info import PRETRAINED_DIR, WeightsError, weights_path
from rootserve.server.engines import base, openvino_cpu
from rootserve.server.engines.base import EngineError, LoadSpec, Precision
from rootserve.server.engines.fake import FakeEngine
from rootserve.server.engines.openvino_convolution import FloatArithmetic
from rootserve.server.engines.openvino_cpu import build_network
from rootserve.server.engines.registry import ENGINES, get_loader, preferred_engines
from rootserve.server.engines.torch_eager import build_module

SPEC = LoadSpec("nin-root-16", weights_path("nin-root-16"), "cpu", threads=1)


ON_THE_CPU = preferred_engines("cpu")
BF16_ON_THE_CPU = [name for name in ON_THE_CPU if "bf16" in ENGINES[name].precisions]


@pytest.mark.parametrize("engine", ON_THE_CPU)
def test_logits_are_those_of_the_module(engine: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
    with torch.inference_mode():
        expected = build_module(SPEC)(torch.from_numpy(images)).numpy()
    loaded = get_loader(engine)(SPEC)
    assert loaded.precision == "fp32"
    assert np.abs(expected).max() > 0.5
    for batch in (images, images.astype(np.float32)):
        np.testing.assert_allclose(loaded.run(batch), expected, atol=1e-4)
    np.testing.assert_allclose(loaded.run(images[:1]), expected[:1], atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_each_image_of_a_batch_gets_its_own_logits(precision: Precision, threads: int) -> None:
    """However many images there are: the engine computes most beside another, one that is left over alone."""
    spec = replace(SPEC, precision=precision, threads=threads)
    if precision == "bf16" and not cpu_computes_bf16():
        with pytest.raises(EngineError, match="does not compute in bf16; use precision fp32"):
            get_loader("openvino")(spec)
        return
    loaded = get_loader("openvino")(spec)
    images = np.random.default_rng(0).integers(0, 256, (29, 3, 32, 32), dtype=np.uint8)
    alone = np.concatenate([loaded.run(image[None]) for image in images])
    assert np.abs(alone - alone[0]).max(axis=1)[1:].min() > 0.1  # no two are taken for one another
    for rows in (2, 4, 5, 8, 9, 12, 13, 24, 29):
        np.testing.assert_allclose(loaded.run(images[-rows:]), alone[-rows:], atol=0.02)


@pytest.mark.parametrize("engine", ON_THE_CPU)
def test_logits_of_a_residual_network_are_those_of_the_module(engine: str) -> None:
    spec = LoadSpec("resnet50-root-64", None, "cpu", threads=1)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224), dtype=np.uint8)
    with torch.inference_mode():
        expected = build_module(spec)(torch.from_numpy(images)).numpy()
    assert expected.shape == (2, 1000)
    assert np.abs(expected).max() > 0.5
    loaded = get_loader(engine)(spec)
    np.testing.assert_allclose(loaded.run(images), expected, atol=1e-4)
    if engine not in BF16_ON_THE_CPU:
        return
    reduced_spec = replace(spec, precision="bf16")
    if not cpu_computes_bf16():
        with pytest.raises(EngineError, match="does not compute in bf16; use precision fp32"):
            get_loader(engine)(reduced_spec)
        return
    reduced = get_loader(engine)(reduced_spec).run(images)
    error = np.abs(reduced - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.05


@pytest.mark.parametrize("threads", [2, 4])
def test_batches_side_by_side_have_the_logits_of_batches_alone(threads: int) -> None:
    engine = openvino_cpu.load(replace(SPEC, threads=threads))
    assert engine.streams in {2, threads}
    rng = np.random.default_rng(0)
    batches = [
        rng.integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8) for rows in (1, 5, 2, 9, 1, 3)
    ]
    expected = [engine.run(images) for images in batches]
    with ThreadPoolExecutor(len(batches)) as lanes:
        for _ in range(5):
            for found, alone in zip(lanes.map(engine.run_beside, batches), expected, strict=True):
                np.testing.assert_allclose(found, alone, atol=1e-4)


def test_nodes_have_the_names_of_the_layers() -> None:
    network = LoadSpec("resnet50-root-64", None, "cpu", 1).network()
    nodes = {
        node.friendly_name: node for node in build_network(network, FloatArithmetic()).get_ops()
    }
    for layer in network.layers:
        assert layer.name in nodes
    assert nodes["res2a_branch2b"].get_type_name() == "GroupConvolution"
    assert nodes["res2a"].get_type_name() == "Add"
    assert nodes["fc"].get_type_name() == "MatMul"


@pytest.mark.parametrize("engine", BF16_ON_THE_CPU)
def test_bf16_is_refused_where_the_processor_has_none(
    monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(base, "cpu_computes_bf16", lambda: False)
    with pytest.raises(EngineError, match="does not compute in bf16; use precision fp32"):
        get_loader(engine)(replace(SPEC, precision="bf16"))


def test_bf16_is_refused_where_openvino_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "cpu_computes_bf16", lambda: True)
    monkeypatch.setattr(ov.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(EngineError, match="does not compute in bf16; use precision fp32"):
        get_loader("openvino")(replace(SPEC, precision="bf16"))


def test_int8_computes_in_fp32_between_where_the_processor_has_no_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenVINO offers bf16 even where oneDNN is held to an instruction set without it."""
    for has_bf16, hint in ((True, "bf16"), (False, "f32")):
        monkeypatch.setattr(openvino_cpu, "cpu_computes_bf16", lambda has=has_bf16: has)
        monkeypatch.setattr(ov.Core, "get_property", lambda *_: ["FP32", "BF16", "INT8"])
        options = openvino_cpu.compile_options(ov.Core(), replace(SPEC, precision="int8"))
        assert options["INFERENCE_PRECISION_HINT"] == hint


def test_openvino_needs_no_torch() -> None:
    program = (
        "import sys; from rootserve.server.engines import openvino_cpu;"
        "from rootserve.server.engines.base import LoadSpec;"
        "openvino_cpu.load(LoadSpec('nin-col-16', None, 'cpu', 1)); import rootserve.server.workers.process;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_model_without_weights_is_the_same_in_every_process() -> None:
    spec = LoadSpec("nin-col-4", None, "cpu", 1)
    first, second = build_module(spec), build_module(spec)
    assert torch.equal(first.body.conv2a.conv.weight, second.body.conv2a.conv.weight)


def test_weights_of_another_variant_are_refused() -> None:
    spec = LoadSpec("nin-orig", PRETRAINED_DIR / "nin-root-16.safetensors", "cpu", 1)
    with pytest.raises(WeightsError, match="holds weights of nin-root-16, not of nin-orig"):
        build_module(spec)


def test_engines_refuse_devices_they_cannot_use() -> None:
    with pytest.raises(EngineError, match="openvino runs on the cpu, not on cuda:0"):
        get_loader("openvino")(LoadSpec("nin-orig", None, "cuda:0", 0))
    count = torch.cuda.device_count()
    with pytest.raises(EngineError, match=f"no device cuda:{count}"):
        get_loader("torch")(LoadSpec("nin-orig", None, f"cuda:{count}", 0))


def test_what_auto_tries() -> None:
    assert preferred_engines("cpu") == ("openvino", "torch")
    assert preferred_engines("cuda:0") == ("cuda-kernels", "cuda-graphs", "torch")


def test_the_fake_engine_answers_with_means() -> None:
    images = np.zeros((2, 3, 32, 32), np.uint8)
    images[1] = 7
    logits = FakeEngine(classes=10).run(images)
    assert logits[0].tolist() == list(range(10))
    assert logits[1].tolist() == [7.0 + c for c in range(10)]


def test_the_fake_engine_raises_when_told_to() -> None:
    images = np.zeros((1, 3, 32, 32), np.uint8)
    images.reshape(-1)[:5] = list(b"raise")
    with pytest.raises(RuntimeError, match="asked to raise"):
        FakeEngine(classes=10).run(images)


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.safetensors"):
        build_module(LoadSpec("nin-orig", tmp_path / "gone.safetensors", "cpu", 1))
