"""Mergeable sums against plain NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.moments import Array, Moments, merge_all
from rootmodels.analysis.sums import (
    LayerShape,
    Sums,
    UnknownLayerError,
    make_plan,
    merge_sums,
)
from tests.support.moments import moments_of, pair_moments

values = st.floats(-100, 100, allow_subnormal=False, width=32)


def assert_same(came: Moments, expected: Moments, tolerance: float = 1e-10) -> None:
    assert came.samples == expected.samples
    for mine, theirs in zip(
        (came.mean_rows, came.mean_columns, came.scatter),
        (expected.mean_rows, expected.mean_columns, expected.scatter),
        strict=True,
    ):
        # Relative to what was added up, which may be far more than what is left of it.
        scale = max(1.0, expected.samples * 100.0 * 100.0 if mine.ndim == 2 else 100.0)
        assert np.abs(mine - theirs).max(initial=0) <= tolerance * scale


@st.composite
def split_samples(draw: st.DrawFn) -> tuple[Array, Array, list[int], list[int]]:
    """Samples of two layers, where to cut them into parts, and an order of the parts."""
    samples = draw(st.integers(1, 30))
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    first = draw(hnp.arrays(np.float64, (samples, rows), elements=values))
    second = draw(hnp.arrays(np.float64, (samples, columns), elements=values))
    cuts = sorted(draw(st.lists(st.integers(0, samples), max_size=6)))
    order = draw(st.permutations(range(len(cuts) + 1)))
    return first, second, cuts, list(order)


@given(split_samples())
def test_any_split_in_any_order_merges_to_the_same(
    case: tuple[Array, Array, list[int], list[int]],
) -> None:
    first, second, cuts, order = case
    pieces = list(zip(np.split(first, cuts), np.split(second, cuts), strict=True))
    parts = [moments_of(a, b) for a, b in (pieces[index] for index in order)]
    whole = moments_of(first, second)
    assert_same(merge_all(parts), whole)
    one_by_one = parts[0]
    for part in parts[1:]:
        one_by_one = one_by_one.merge(part)
    assert_same(one_by_one, whole)


def test_a_large_mean_cancels_nothing() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(3000, 4)) + 1e6
    parts = [moments_of(part) for part in np.array_split(samples, 37)]
    expected = np.cov(samples, rowvar=False) * (len(samples) - 1)
    error = np.linalg.norm(merge_all(parts).scatter - expected) / np.linalg.norm(expected)
    assert error < 1e-10


def test_sums_of_other_channels_do_not_merge() -> None:
    with pytest.raises(AnalysisError, match=r"\(2, 2\) and \(3, 3\)"):
        Moments.zero(2, 2).merge(Moments.zero(3, 3))


LAYERS = (
    LayerShape("a", 6, 8, 8),
    LayerShape("b", 4, 8, 8),
    LayerShape("c", 6, 4, 4, groups=2),
    LayerShape("odd", 4, 3, 3),
)


def test_a_plan_without_wishes_has_all_adjacent_pairs() -> None:
    plan = make_plan(LAYERS[:3])
    assert plan.pairs == (("a", "b"), ("b", "c"))
    assert plan.layers == LAYERS[:3]


def test_a_plan_has_the_layers_in_their_order_and_pairs_as_asked_for() -> None:
    plan = make_plan(LAYERS, [("c", "a"), ("b", "b"), ("c", "a")], ["c"])
    assert plan.pairs == (("c", "a"), ("b", "b"))
    assert [layer.name for layer in plan.layers] == ["a", "b", "c"]
    assert plan.pixels(("c", "a")) == 64
    assert make_plan(LAYERS, layers=["odd"]).pairs == ()


def test_a_plan_refuses_what_cannot_be_looked_at() -> None:
    with pytest.raises(UnknownLayerError, match="'conv9'; there are: a, b, c, odd"):
        make_plan(LAYERS, [("a", "conv9")])
    with pytest.raises(UnknownLayerError, match="'conv9'"):
        make_plan(LAYERS, layers=["conv9"])
    with pytest.raises(AnalysisError, match="pair a-odd: maps of 3x3 and 8x8 pixels"):
        make_plan(LAYERS, [("a", "odd")])
    crossed = LayerShape("wide", 1, 4, 8), LayerShape("high", 1, 8, 4)
    with pytest.raises(AnalysisError, match="pair wide-high: neither of maps of 4x8 and 8x4"):
        make_plan(crossed, [("wide", "high")])


def random_sums(seed: int, images: int) -> Sums:
    plan = make_plan(LAYERS[:3])
    rng = np.random.default_rng(seed)
    maps = {
        shape.name: rng.normal(size=(images, shape.channels, shape.height, shape.width))
        for shape in plan.layers
    }
    pairs = {pair: pair_moments(maps[pair[0]], maps[pair[1]]) for pair in plan.pairs}
    layers = {name: pair_moments(own, own) for name, own in maps.items()}
    return Sums(plan, images, layers, pairs)


def test_sums_survive_as_bytes() -> None:
    sums = random_sums(1, 3)
    data = sums.to_bytes()
    assert len(data) == Sums.byte_size(sums.plan)
    again = Sums.from_bytes(sums.plan, data)
    assert again.images == 3
    for name, moments in sums.layers.items():
        assert_same(again.layers[name], moments, 0)
    for pair, moments in sums.pairs.items():
        # The means of the up-sampled map's pixels are those of the own ones, but for rounding.
        assert_same(again.pairs[pair], moments, 1e-15)


def test_sums_of_nothing_change_nothing() -> None:
    sums = random_sums(2, 2)
    merged = merge_sums([Sums.zero(sums.plan), sums, Sums.zero(sums.plan)])
    assert merged.images == 2
    assert_same(merged.layers["a"], sums.layers["a"], 0)
    assert_same(merged.pairs["b", "c"], sums.pairs["b", "c"], 0)


def test_sums_of_other_plans_do_not_merge() -> None:
    with pytest.raises(AnalysisError, match="different layers or pairs"):
        random_sums(1, 1).merge(Sums.zero(make_plan(LAYERS[:2])))
