import pytest

from rootserve.server.core.latency import LatencyTable


def test_knows_nothing_of_a_model_it_never_saw() -> None:
    assert LatencyTable().predict("a", 1) is None


def test_sizes_between_powers_of_two_share_an_average() -> None:
    durations = LatencyTable(weight=0.5)
    durations.learn("a", 5, 1.0)
    durations.learn("a", 8, 2.0)
    assert durations.predict("a", 7) == pytest.approx(1.5)


def test_a_larger_batch_is_told_in_proportion_to_the_nearest_smaller_one() -> None:
    durations = LatencyTable()
    durations.learn("a", 1, 0.001)
    durations.learn("a", 4, 0.003)
    assert durations.predict("a", 16) == pytest.approx(0.012)


def test_a_smaller_batch_is_not_told_to_be_faster_than_was_seen() -> None:
    durations = LatencyTable()
    durations.learn("a", 32, 0.01)
    assert durations.predict("a", 1) == pytest.approx(0.01)


def test_models_are_apart() -> None:
    durations = LatencyTable()
    durations.learn("a", 1, 1.0)
    assert durations.predict("b", 1) is None


def test_kinds_of_worker_are_apart() -> None:
    durations = LatencyTable()
    durations.learn("a", 1, 1.0, "slow")
    durations.learn("a", 1, 0.01, "fast")
    assert durations.predict("a", 1, "slow") == pytest.approx(1.0)
    assert durations.predict("a", 1, "fast") == pytest.approx(0.01)
    assert durations.predict("a", 1, "another") is None
