"""The energy that groups keep, and the search for those that keep the most: held to the mathematics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootmodels.suggest.energy import Array, Energy, Labels
from rootmodels.suggest.figure import explained_by_group
from rootmodels.suggest.grouping import (
    Piece,
    contiguous,
    energy_kept,
    random_grouping,
    sizes_of,
    suggest_groups,
)

seeds = st.integers(0, 2**32 - 1)
shapes = st.sampled_from([(2, 4, 4, 1), (2, 6, 4, 3), (3, 6, 9, 2), (4, 8, 12, 1), (4, 4, 8, 2)])
"""Groups, channels, filters, side of the kernel."""


def spread(rng: np.random.Generator, size: int) -> Array:
    """A covariance, of some values that say nearly the same."""
    mixing = rng.normal(size=(size, max(2, size // 2)))
    covariance: Array = mixing @ mixing.T + 0.05 * np.eye(size)
    return covariance


def some(seed: int, channels: int, filters: int, side: int) -> Energy:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(filters, channels, side, side))
    return Energy(weight, spread(rng, channels * side**2))


def same_groups(first: Labels, second: Labels) -> bool:
    """Whether both put the same channels together, whatever the groups are called."""
    return len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second))


@settings(max_examples=60, deadline=None)
@given(seeds, shapes)
def test_energies_are_shares_and_a_fit_never_keeps_less(
    seed: int, shape: tuple[int, int, int, int]
) -> None:
    groups, channels, filters, side = shape
    energy = some(seed, channels, filters, side)
    one = random_grouping({"in": channels, "out": filters}, groups, seed)
    kept = energy.kept(one["in"], one["out"])
    assert 0.0 <= kept <= 1.0
    assert kept >= energy.kept_without_fit(one["in"], one["out"]) - 1e-4
    assert energy.kept(np.zeros(channels, int), np.zeros(filters, int)) == pytest.approx(
        1, abs=1e-3
    )


@settings(max_examples=60, deadline=None)
@given(seeds, shapes)
def test_the_order_of_channels_and_filters_means_nothing(
    seed: int, shape: tuple[int, int, int, int]
) -> None:
    groups, channels, filters, side = shape
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(filters, channels, side, side))
    covariance = spread(rng, channels * side**2)
    one = random_grouping({"in": channels, "out": filters}, groups, seed)
    taken, made = rng.permutation(channels), rng.permutation(filters)
    values = (taken[:, None] * side**2 + np.arange(side**2)).ravel()
    other = Energy(weight[made][:, taken], covariance[np.ix_(values, values)])
    before = Energy(weight, covariance)
    assert other.kept(one["in"][taken], one["out"][made]) == pytest.approx(
        before.kept(one["in"], one["out"]), abs=1e-9
    )
    assert other.kept_without_fit(one["in"][taken], one["out"][made]) == pytest.approx(
        before.kept_without_fit(one["in"], one["out"]), abs=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(seeds, shapes)
def test_a_view_tells_what_a_channel_more_or_less_explains(
    seed: int, shape: tuple[int, int, int, int]
) -> None:
    _, channels, filters, side = shape
    energy = some(seed, channels, filters, side)
    rng = np.random.default_rng(seed)
    inside = np.sort(rng.choice(channels, channels // 2, replace=False))
    chosen = np.sort(rng.choice(filters, filters // 2, replace=False))
    view = energy.view(inside, chosen)
    np.testing.assert_allclose(view.explained, energy.explained(inside))
    for channel in range(channels):
        if channel in inside:
            others = energy.explained(inside[inside != channel])
            change, told = view.explained - others, view.removed[channel]
            assert view.added[channel] == 0
        else:
            change = energy.explained([*inside, channel]) - view.explained
            told = view.added[channel]
            assert view.removed[channel] == 0
        assert told == pytest.approx(change[chosen].sum(), rel=1e-6, abs=1e-8 * energy.total)
        assert told >= 0


@settings(max_examples=25, deadline=None)
@given(seeds, shapes)
def test_suggested_groups_are_of_equal_size_and_keep_no_less_than_contiguous_ones(
    seed: int, shape: tuple[int, int, int, int]
) -> None:
    groups, channels, filters, side = shape
    pieces = [Piece("a", "x", "y", some(seed, channels, filters, side))]
    found = suggest_groups(pieces, groups)
    plain = {name: contiguous(size, groups) for name, size in sizes_of(pieces).items()}
    assert energy_kept(pieces, found) >= energy_kept(pieces, plain) - 1e-12
    for name, size in sizes_of(pieces).items():
        assert np.bincount(found[name], minlength=groups).tolist() == [size // groups] * groups


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("groups", "channels", "filters", "side"),
    [(2, 8, 8, 3), (3, 9, 15, 2), (4, 16, 32, 3), (8, 32, 32, 1)],
)
def test_planted_groups_are_found_exactly(
    seed: int, groups: int, channels: int, filters: int, side: int
) -> None:
    rng = np.random.default_rng(seed)
    taken = rng.permutation(contiguous(channels, groups))
    made = rng.permutation(contiguous(filters, groups))
    weight = rng.normal(size=(filters, channels, side, side))
    weight[made[:, None] != taken] = 0
    of_value = np.repeat(taken, side**2)
    covariance = spread(rng, channels * side**2) * (of_value[:, None] == of_value)
    energy = Energy(weight, covariance)
    found = suggest_groups([Piece("a", "x", "y", energy)], groups)
    assert same_groups(found["x"], taken)
    assert same_groups(found["y"], made)
    assert energy.kept(found["x"], found["y"]) == pytest.approx(1, abs=1e-4)


def test_convolutions_that_share_channels_agree_on_their_groups() -> None:
    rng = np.random.default_rng(3)
    labels = {name: rng.permutation(contiguous(12, 3)) for name in ("x", "y", "z")}
    pieces = []
    # x is taken by both; z is made of y, which the first makes.
    for name, taken, made in (("a", "x", "y"), ("b", "x", "z"), ("c", "y", "z")):
        weight = rng.normal(size=(12, 12, 3, 3))
        weight[labels[made][:, None] != labels[taken]] = 0
        pieces.append(Piece(name, taken, made, Energy(weight, np.eye(108))))
    found = suggest_groups(pieces, 3)
    assert all(same_groups(found[name], labels[name]) for name in labels)
    assert energy_kept(pieces, found) == pytest.approx(3, abs=1e-3)


def test_a_fit_explains_what_it_says_and_is_scaled_to_vary_as_before() -> None:
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(6, 8, 3, 3))
    covariance = spread(rng, 72)
    energy = Energy(weight, covariance)
    channels, filters = np.array([1, 4, 6]), np.array([0, 5])
    part = energy.fitted(weight, channels, filters)
    assert part.shape == (2, 3, 9)
    left = weight[filters].reshape(2, 8, 9).copy()
    left[:, channels] -= part
    flat = left.reshape(2, -1)
    lost = np.einsum("op,pq,oq->o", flat, covariance, flat)
    explained = energy.explained(channels)[filters]
    np.testing.assert_allclose(lost, energy.variances[filters] - explained, rtol=1e-3)
    scaled = part * energy.scale(weight, part, channels, filters)[:, None, None]
    places = (channels[:, None] * 9 + np.arange(9)).ravel()
    own = covariance[np.ix_(places, places)]
    varies = np.einsum("op,pq,oq->o", scaled.reshape(2, -1), own, scaled.reshape(2, -1))
    np.testing.assert_allclose(varies, energy.variances[filters])


def test_what_never_varies_is_grouped_as_well() -> None:
    energy = Energy(np.zeros((4, 4, 1, 1)), np.zeros((4, 4)))
    found = suggest_groups([Piece("a", "x", "y", energy)], 2)
    assert energy.kept(found["x"], found["y"]) == 0
    weight = np.zeros((4, 4, 1, 1))
    part = energy.fitted(weight, [0, 1], np.array([0, 1]))
    assert not part.any()
    assert energy.scale(weight, part, [0, 1], np.array([0, 1])).tolist() == [1, 1]


def test_a_covariance_of_other_values_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a covariance of \(4, 4\) came, expected \(36, 36\)"):
        Energy(np.ones((2, 4, 3, 3)), np.eye(4))


def test_the_diagonal_of_a_map_is_what_is_kept() -> None:
    energy = some(7, 8, 12, 3)
    one = random_grouping({"in": 8, "out": 12}, 4, 7)
    shares = explained_by_group(Piece("a", "in", "out", energy), one["in"], one["out"])
    assert shares.shape == (4, 4)
    own = [energy.variances[one["out"] == group].sum() for group in range(4)]
    kept = energy.kept(one["in"], one["out"])
    assert float(np.diag(shares) @ own) / energy.total == pytest.approx(kept)
