"""Engines that tell how long their layers take: every layer has its time, or says whose it shares."""

from typing import ClassVar

import numpy as np
import pytest

from rootserve.server.engines.base import LoadSpec
from rootserve.server.engines.profiling import PassTimes, Quartiles, measure
from rootserve.server.engines.registry import ENGINES, can_profile, get_loader, get_profiler_loader


@pytest.mark.parametrize("engine", [name for name in ENGINES if can_profile(name)])
@pytest.mark.parametrize("model", ["nin-root-4", "resnet50-root-64"])
def test_every_layer_is_accounted_for_once(engine: str, model: str) -> None:
    spec = LoadSpec(model, None, "cpu", 1)
    layers = spec.network().layers
    profiler = get_profiler_loader(engine)(spec)
    images = np.zeros((2, 3, *([layers_size(model)] * 2)), np.uint8)
    times = profiler.run(images)
    names = {layer.name for layer in layers}
    assert times.layers.keys() | profiler.computed_in.keys() == names
    assert not times.layers.keys() & profiler.computed_in.keys()
    assert set(profiler.computed_in.values()) <= times.layers.keys()
    # What has weights is a step of its own on both engines, and what is a part is an addition at most.
    assert {layer.kind for layer in layers if layer.name in profiler.computed_in} <= {"add"}
    assert all(times.layers[layer.name] >= 0 for layer in layers if layer.has_weights)
    assert sum(times.layers.values()) > 0
    assert times.total_ns > 0


def layers_size(model: str) -> int:
    return 32 if model.startswith("nin") else 224


def test_the_torch_profiler_runs_what_the_engine_runs() -> None:
    spec = LoadSpec("nin-root-4", None, "cpu", 1)
    engine = get_loader("torch")(spec)
    assert get_profiler_loader("torch")(spec)._engine.module.layers == engine.module.layers  # type: ignore[attr-defined]


class Scripted:
    """Takes as long as it is told, in turns."""

    computed_in: ClassVar = {"b": "a"}

    def __init__(self) -> None:
        self.runs = 0

    def run(self, images: np.ndarray) -> PassTimes:
        self.runs += 1
        return PassTimes({"a": self.runs}, 10 * self.runs, 100 * self.runs)


def test_medians_leave_the_first_runs_out() -> None:
    profiler = Scripted()
    times = measure(profiler, np.zeros((1, 3, 4, 4), np.uint8))
    assert profiler.runs == 33
    assert times.runs == 31
    # Of 3 to 33.
    assert times.layers == {"a": Quartiles(10, 18, 26)}
    assert times.total.median == 1800
    assert times.other.median == 180
    assert times.computed_in == {"b": "a"}
