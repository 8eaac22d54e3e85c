"""Which requests a load run sends: its options, the pool of images, mixes and traces."""

from dataclasses import replace

import numpy as np
import pytest

from rootserve.client.errors import InputError
from rootserve.client.load import LoadOptions, Mix, Trace
from rootserve.client.load.requests import Kind, RequestPool, images_needed, plan_for
from rootserve.client.load.trace import TraceEntry
from tests.support.load_results import MIXED, OPTIONS


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"concurrency": None}, "either concurrency"),
        ({"rate": 5.0}, "either concurrency"),
        ({"concurrency": 0}, "concurrency 0"),
        ({"concurrency": None, "rate": float("nan")}, "rate nan"),
        ({"concurrency": None, "rate": 1e6}, "requests per second"),
        ({"duration_s": 0.0}, "duration 0.0"),
        ({"duration_s": float("inf")}, "duration inf"),
        ({"warmup_s": -1.0}, "warm-up -1.0"),
        ({"rows": 0}, "rows 0"),
        ({"seed": -1}, "seed -1"),
        ({"deadline_s": 0.0}, "deadline 0.0"),
        ({"timeout_s": 0.0}, "timeout 0.0"),
        ({"priority": -1}, "priority -1"),
        ({"max_in_flight": 0}, "max-in-flight 0"),
        ({"distribution": "normal"}, "poisson or constant"),
        ({"server": "nowhere"}, "HOST:PORT"),
    ],
)
def test_options_name_what_is_out_of_range(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LoadOptions(**{"model": "nin-orig", "concurrency": 1} | changes)


def test_the_pool_stays_within_memory() -> None:
    small, large = (plan_for(LoadOptions(model="m", concurrency=1, rows=rows)) for rows in (2, 256))
    assert images_needed(small, "m", 3 * 32 * 32) == 128
    assert images_needed(large, "m", 3 * 224 * 224) < 4 * 256
    pool = RequestPool(plan_for(OPTIONS), {"nin-orig": np.zeros((3, 3, 32, 32), np.uint8)})
    assert len(pool) == 64
    sizes = {len(pool.body(n)[0]) - 4 * 3 * 32 * 32 for n in range(64)}
    assert 0 < min(sizes) <= max(sizes) < 200


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (3, 32, 32), (2, 1, 32, 32)])
def test_the_pool_wants_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \[N, 3, H, W\]"):
        RequestPool(plan_for(OPTIONS), {"nin-orig": np.zeros(shape, np.uint8)})


def test_too_many_kinds_for_the_memory_are_refused() -> None:
    options = LoadOptions(model="m", concurrency=1, rows=Mix(tuple(range(1, 1001)), (1.0,) * 1000))
    with pytest.raises(InputError, match=r"kinds of requests need .* fewer different rows"):
        RequestPool(plan_for(options), {"m": np.zeros((2, 3, 64, 64), np.uint8)})


def test_a_mix_follows_its_weights_and_its_seed() -> None:
    plan = plan_for(MIXED)
    kinds = [plan.kinds[plan.kind_of(n)] for n in range(4096)]
    assert len(plan.kinds) == 8
    assert {kind.deadline_s for kind in kinds} == {0.5}
    assert sum(kind.model == "a" for kind in kinds) / 4096 == pytest.approx(0.75, abs=0.03)
    assert sum(kind.priority == 1 for kind in kinds) / 4096 == pytest.approx(0.1, abs=0.02)
    assert plan_for(MIXED) == plan
    assert plan_for(replace(MIXED, seed=4)) != plan


def test_a_trace_overrides_what_it_names() -> None:
    trace = Trace(
        "f", (TraceEntry(0.0), TraceEntry(0.1, "b", 16, 2, 0.25), TraceEntry(0.2, rows=4))
    )
    plan = plan_for(replace(OPTIONS, concurrency=None, rate=trace, priority=1))
    assert [plan.kinds[plan.kind_of(n)] for n in range(3)] == [
        Kind("nin-orig", 4, 1), Kind("b", 16, 2, 0.25), Kind("nin-orig", 4, 1),
    ]  # fmt: skip
