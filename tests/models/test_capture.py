"""Sums from images against a direct float64 computation on materialised, up-sampled samples."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from rootmodels.analysis.capture import Capture
from rootmodels.analysis.covariance import correlation, covariance, varying, whitened, whitening
from rootmodels.analysis.layers import Stage, analysable_layers
from rootmodels.analysis.moments import Array
from rootmodels.analysis.responses import responses
from rootmodels.analysis.sums import Plan, make_plan, merge_sums
from rootmodels.cifar10 import read_cifar10
from rootmodels.layers import network_layers
from rootmodels.network import Network
from rootmodels.variants import get_variant
from rootmodels.weights import load_weights
from rootmodels.weights_info import PRETRAINED_DIR, weights_path
from tests.support.moments import moments_of

IMAGES = 40


@pytest.fixture(scope="module", params=["nin-orig", "nin-root-4"])
def module(request: pytest.FixtureRequest) -> Network:
    model, _ = load_weights(weights_path(request.param, PRETRAINED_DIR))
    return model.fold()


@pytest.fixture(scope="module")
def images(sample_path: Path) -> np.ndarray:
    return read_cifar10(sample_path, "test").images[::25][:IMAGES]


def direct_samples(module: Network, images: np.ndarray, stage: Stage) -> dict[str, Array]:
    """Every layer's responses as float64 samples [N x 32 x 32, C], up-sampled by torch itself."""
    maps = {}
    with torch.inference_mode():
        for name, response in responses(module, torch.from_numpy(images), stage):
            large = torch.nn.functional.interpolate(response.double(), (32, 32), mode="nearest")
            maps[name] = large.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    return maps


def relative_error(came: Array, expected: Array) -> float:
    return float(np.linalg.norm(came - expected) / np.linalg.norm(expected))


def full_plan(module: Network, size: int = 32) -> Plan:
    return make_plan(analysable_layers(network_layers(module.variant, size)))


@pytest.mark.parametrize("stage", list(Stage))
def test_every_adjacent_pair_equals_the_direct_computation(
    module: Network, images: np.ndarray, stage: Stage
) -> None:
    plan = full_plan(module)
    capture = Capture(module, plan, stage)
    capture.add(images)
    sums = capture.sums()
    direct = direct_samples(module, images, stage)
    assert list(plan.pairs) == list(pairwise(direct))
    assert len(plan.pairs) == 8
    for first, second in plan.pairs:
        size = max(shape.height for shape in plan.pair((first, second)))
        a, b = on_grid(direct[first], size), on_grid(direct[second], size)
        # np.cov is the second opinion.
        both = np.cov(a, b, rowvar=False)
        channels = a.shape[1]
        came = covariance(sums.pairs[first, second])
        # Responses are fp32, and processors round them differently.
        assert relative_error(came, both[:channels, channels:]) < 5e-6, (first, second)
    for shape in plan.layers:
        expected = np.cov(on_grid(direct[shape.name], shape.height), rowvar=False)
        assert relative_error(covariance(sums.layers[shape.name]), expected) < 5e-6


def on_grid(samples: Array, size: int) -> Array:
    """Samples up-sampled to 32 x 32, as if up-sampled to size x size only."""
    maps = samples.reshape(-1, 32, 32, samples.shape[1])
    step = 32 // size
    return maps[:, ::step, ::step].reshape(-1, maps.shape[3])


def test_whitened_covariance_equals_the_direct_computation(
    module: Network, images: np.ndarray
) -> None:
    plan = full_plan(module)
    capture = Capture(module, plan)
    capture.add(images)
    sums = capture.sums()
    direct = direct_samples(module, images, Stage.AFTER_RELU)
    for pair in plan.pairs:
        came = whitened(sums.pairs[pair], *(whitening(sums.layers[name]) for name in pair))
        moments = [moments_of(direct[name]) for name in pair]
        cross = moments_of(direct[pair[0]], direct[pair[1]])
        expected = whitened(cross, *map(whitening, moments))
        # Whitening multiplies what is rounded in float32 by up to tolerance^(-1/2).
        assert relative_error(came, expected) < 1e-3, pair
        assert np.isfinite(came).all()


def test_parts_in_any_order_give_the_same_sums(images: np.ndarray) -> None:
    model = Network(get_variant("nin-root-16")).fold()
    plan = full_plan(model)
    parts = []
    for part in (images[25:], images[:1], images[1:25]):
        capture = Capture(model, plan)
        capture.add(part)
        parts.append(capture.sums())
    merged = merge_sums(parts)
    whole = Capture(model, plan)
    whole.add(images)
    expected = whole.sums()
    assert merged.images == expected.images == len(images)
    for pair in plan.pairs:
        assert merged.pairs[pair].samples == expected.pairs[pair].samples
        error = relative_error(merged.pairs[pair].scatter, expected.pairs[pair].scatter)
        assert error < 1e-6


def test_dead_and_constant_channels_give_no_nan_and_cost_rank(images: np.ndarray) -> None:
    torch.manual_seed(1)
    model = Network(get_variant("nin-root-4")).fold()
    with torch.no_grad():
        conv = model.body.conv2a.conv
        conv.weight[:5] = 0
        conv.bias[:3] = -1.0  # never fires
        conv.bias[3:5] = 0.1  # always the same, and 0.1 is no float32
    plan = make_plan(analysable_layers(model.layers), [("conv1c", "conv2a"), ("conv2a", "conv2b")])
    parts = []
    for part in (images[:11], images[11:]):
        capture = Capture(model, plan)
        capture.add(part)
        parts.append(capture.sums())
    sums = merge_sums(parts)
    layer = sums.layers["conv2a"]
    assert varying(layer).sum() == 192 - 5
    zca = whitening(layer)
    assert 0 < zca.rank <= 192 - 5
    result = whitened(sums.pairs["conv2a", "conv2b"], zca, whitening(sums.layers["conv2b"]))
    assert np.isfinite(result).all()
    assert not result[:5].any()
    assert not correlation(layer)[:5].any()


@pytest.mark.parametrize(
    ("pairs", "size"),
    [
        ([("conv3a", "conv1a")], 32),
        ([("conv2b", "conv2b"), ("conv1a", "conv3c")], 32),
        ([("conv2a", "conv1c"), ("conv3a", "conv2a")], 28),
    ],
)
def test_any_pair_in_any_direction(
    images: np.ndarray, pairs: list[tuple[str, str]], size: int
) -> None:
    model = Network(get_variant("nin-tree-2")).fold()
    small_images = np.ascontiguousarray(images[:9, :, :size, :size])
    plan = make_plan(analysable_layers(network_layers(model.variant, size)), pairs)
    capture = Capture(model, plan)
    capture.add(small_images)
    sums = capture.sums()
    with torch.inference_mode():
        maps = dict(responses(model, torch.from_numpy(small_images), Stage.AFTER_RELU))
    for first, second in pairs:
        grid = max(maps[first].shape[2:], maps[second].shape[2:])
        a, b = (
            torch.nn.functional.interpolate(maps[name].double(), size=grid).permute(0, 2, 3, 1)
            for name in (first, second)
        )
        expected = moments_of(a.flatten(0, 2).numpy(), b.flatten(0, 2).numpy())
        assert sums.pairs[first, second].samples == expected.samples
        assert relative_error(sums.pairs[first, second].scatter, expected.scatter) < 1e-6


def test_layers_run_only_as_far_as_the_plan_asks(images: np.ndarray) -> None:
    model = Network(get_variant("nin-orig")).fold()
    ran = []
    model.body.conv2a.conv.register_forward_hook(lambda *_: ran.append("conv2a"))
    capture = Capture(model, make_plan(analysable_layers(model.layers), [("conv1a", "conv1c")]))
    capture.add(images[:2])
    assert not ran
    assert capture.sums().images == 2


def test_no_images_are_the_sums_of_nothing() -> None:
    model = Network(get_variant("nin-orig")).fold()
    sums = Capture(model, full_plan(model)).sums()
    assert sums.images == 0
    assert not sums.pairs["conv1a", "conv1b"].scatter.any()
