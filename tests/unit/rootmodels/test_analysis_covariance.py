"""Covariance, correlation, whitening and block scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootmodels.analysis.blocks import (
    best_groups,
    block_score,
    block_scores,
    candidate_groups,
    rank_groups,
)
from rootmodels.analysis.covariance import correlation, covariance, varying, whitened, whitening
from rootmodels.analysis.derived import Kind, derive
from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.moments import Array
from rootmodels.analysis.sums import LayerShape, Sums, make_plan
from tests.support.moments import moments_of


def mixed_samples(seed: int, samples: int, channels: int) -> Array:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(channels, channels))
    return rng.normal(size=(samples, channels)) @ mixing + rng.normal(size=channels)


def test_covariance_and_correlation_are_those_of_numpy() -> None:
    samples = mixed_samples(0, 50, 7)
    moments = moments_of(samples)
    np.testing.assert_allclose(covariance(moments), np.cov(samples, rowvar=False), rtol=1e-12)
    np.testing.assert_allclose(
        correlation(moments), np.corrcoef(samples, rowvar=False), rtol=1e-10, atol=1e-12
    )


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 12))
def test_the_whitened_covariance_with_itself_is_the_identity_on_the_support(
    seed: int, samples: int, channels: int
) -> None:
    data = mixed_samples(seed, samples, channels)
    moments = moments_of(data)
    zca = whitening(moments)
    result = whitened(moments, zca, zca)
    # A projection: its own square, with as many ones as the rank says.
    np.testing.assert_allclose(result @ result, result, atol=1e-6)
    assert zca.rank == round(float(np.trace(result)))
    assert zca.rank <= min(channels, samples - 1)
    if zca.rank == channels:
        np.testing.assert_allclose(result, np.eye(channels), atol=1e-6)


def test_whitening_is_symmetric_and_the_inverse_root() -> None:
    moments = moments_of(mixed_samples(3, 500, 6))
    matrix = whitening(moments, tolerance=0).matrix
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-9)
    np.testing.assert_allclose(matrix @ matrix @ covariance(moments), np.eye(6), atol=1e-8)


def test_a_pair_whitened_from_sums_equals_whitening_the_samples() -> None:
    rng = np.random.default_rng(5)
    first = mixed_samples(1, 300, 6)
    second = np.maximum(first @ rng.normal(size=(6, 4)) + rng.normal(size=(300, 4)), 0)
    moments1, moments2 = moments_of(first), moments_of(second)
    zca1, zca2 = whitening(moments1), whitening(moments2)
    came = whitened(moments_of(first, second), zca1, zca2)
    white1 = (first - first.mean(axis=0)) @ zca1.matrix
    white2 = (second - second.mean(axis=0)) @ zca2.matrix
    np.testing.assert_allclose(came, white1.T @ white2 / 299, atol=1e-10)


def test_dead_and_constant_channels_have_neither_rank_nor_nan() -> None:
    samples = mixed_samples(2, 200, 6)
    samples[:, 1] = 0.0
    samples[:, 4] = 0.1
    moments = moments_of(samples)
    assert varying(moments).tolist() == [True, False, True, True, False, True]
    zca = whitening(moments)
    assert zca.rank == 4
    assert not zca.matrix[[1, 4]].any()
    related = correlation(moments)
    assert np.isfinite(related).all()
    assert not related[:, [1, 4]].any()
    assert np.diagonal(related).tolist() == [1, 0, 1, 1, 0, 1]


def test_dependent_channels_cost_rank() -> None:
    samples = mixed_samples(2, 200, 5)
    samples[:, 3] = samples[:, 0] - 2 * samples[:, 1]
    assert whitening(moments_of(samples)).rank == 4


def test_a_layer_of_dead_channels_has_rank_zero() -> None:
    moments = moments_of(np.zeros((10, 3)))
    zca = whitening(moments)
    assert zca.rank == 0
    assert not whitened(moments, zca, zca).any()
    assert not correlation(moments).any()


def test_fewer_samples_than_channels_have_the_rank_of_the_samples() -> None:
    zca = whitening(moments_of(mixed_samples(4, 5, 20)))
    assert zca.rank == 4
    assert np.isfinite(zca.matrix).all()


@pytest.mark.parametrize("derive", [covariance, correlation, whitening])
@pytest.mark.parametrize("samples", [0, 1])
def test_fewer_than_two_samples_are_refused(derive: object, samples: int) -> None:
    assert callable(derive)
    with pytest.raises(AnalysisError, match=f"^{samples} samples came, .* needs 2"):
        derive(moments_of(np.ones((samples, 3))))


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, math.nan])
def test_a_tolerance_out_of_range_is_refused(tolerance: float) -> None:
    with pytest.raises(AnalysisError, match="tolerance"):
        whitening(moments_of(mixed_samples(0, 9, 2)), tolerance)


def block_matrix(groups: int, rows: int, columns: int, noise: float, seed: int = 0) -> Array:
    """Normal values of deviation ``noise``, and of 1 + ``noise`` within the blocks."""
    rng = np.random.default_rng(seed)
    inside = np.kron(np.eye(groups), np.ones((rows // groups, columns // groups)))
    return rng.normal(size=(rows, columns)) * (noise + inside)


def test_a_score_by_hand() -> None:
    matrix = np.array([[3.0, -1.0, 1.0, 0.0], [1.0, 1.0, 0.0, -2.0]])
    score = block_score(matrix, 2)
    assert score.ratio == pytest.approx((3 + 1 + 0 + 2) / (1 + 0 + 1 + 1))
    assert score.energy == pytest.approx((9 + 1 + 0 + 4) / (9 + 1 + 1 + 0 + 1 + 1 + 0 + 4))
    inside = np.array([1, 1, 0, 0, 0, 0, 1, 1])
    assert score.fit == pytest.approx(np.corrcoef(np.abs(matrix).ravel(), inside)[0, 1])


def test_the_deviations_are_those_over_all_orders_of_the_columns() -> None:
    from itertools import permutations  # noqa: PLC0415 - here alone

    matrix = block_matrix(2, 4, 6, 0.5, seed=3)
    sums = []
    for order in permutations(range(6)):
        size = np.abs(matrix[:, list(order)])
        sums.append(size[:2, :3].sum() + size[2:, 3:].sum())
    expected = (sums[0] - np.mean(sums)) / np.std(sums)
    assert block_score(matrix, 2).deviations == pytest.approx(expected)


@pytest.mark.parametrize("groups", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("noise", [0.1, 0.5, 2.0])
def test_the_right_number_of_groups_ranks_first(groups: int, noise: float) -> None:
    scores = block_scores(block_matrix(groups, 96, 192, noise))
    assert best_groups(scores) == groups
    best = next(score for score in scores if score.groups == groups)
    assert best.ratio == max(score.ratio for score in scores)
    assert rank_groups(scores)[0] == groups


@pytest.mark.parametrize("seed", range(20))
def test_a_matrix_without_structure_has_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Strong and weak channels, as real layers have them.
    strength = rng.gamma(0.5, size=(96, 1)) * rng.gamma(0.5, size=192)
    scores = block_scores(rng.normal(size=(96, 192)) * strength)
    assert best_groups(scores) == 1
    assert rank_groups(scores) == []


def test_pure_blocks_and_no_values_at_all() -> None:
    pure = block_score(np.kron(np.eye(4), np.ones((2, 3))), 4)
    assert pure.ratio == math.inf
    assert pure.energy == 1.0
    assert pure.fit == pytest.approx(1.0)
    nothing = block_score(np.zeros((8, 12)), 4)
    assert (nothing.ratio, nothing.energy, nothing.fit, nothing.deviations) == (1.0, 0.25, 0.0, 0.0)


def test_the_possible_numbers_of_groups_divide_both() -> None:
    assert candidate_groups(96, 192) == [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96]
    assert candidate_groups(192, 10) == [2]
    assert block_scores(np.ones((3, 4))) == []
    for groups in (0, 1, 5):
        with pytest.raises(AnalysisError, match=f"{groups} groups"):
            block_score(np.ones((6, 6)), groups)


@pytest.mark.parametrize(
    ("layer", "pair", "words"),
    [
        (np.inf, 1.0, "the responses of layer b overflow"),
        (np.nan, np.nan, "the responses of layer b overflow"),
        (1.0, np.inf, "the responses of layers a-b overflow"),
    ],
)
def test_responses_that_overflow_are_refused_and_named(
    layer: float, pair: float, words: str
) -> None:
    """They gave rank 0, matrices of NaN, and success."""
    plan = make_plan([LayerShape("a", 2, 1, 1), LayerShape("b", 2, 1, 1)])
    scatters = {"a": np.eye(2), "b": np.where(np.eye(2) > 0, layer, 0.0)}
    means = {"a": np.zeros(2), "b": np.zeros(2)}
    sums = Sums.from_matrices(plan, 5, means, scatters, {("a", "b"): np.ones((2, 2)) * pair})
    with pytest.raises(AnalysisError, match=words):
        derive(sums, {Kind.COVARIANCE})
