"""How long batches take, as learned, as bounds and as a document."""

import json
import math

import pytest

from rootserve.server.core.latency import FILES, PIXELS, LatencyTable
from rootserve.server.core.speeds import Speeds


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


def test_a_bound_is_the_99th_percentile_and_no_less_than_the_last_ones() -> None:
    table = LatencyTable()
    for _ in range(60):
        table.learn("a", 4, 0.010)
    assert table.bound("a", 4) == pytest.approx(0.010)
    table.learn("a", 4, 0.011)
    bound = table.bound("a", 4)
    assert bound is not None
    assert 0.011 <= bound < 0.013
    for _ in range(200):
        table.learn("a", 4, 0.010)
    assert table.bound("a", 4) == pytest.approx(0.010, rel=0.01)


def test_of_few_batches_the_longest_gets_a_margin() -> None:
    table = LatencyTable()
    table.learn("a", 1, 0.010)
    few = table.bound("a", 1)
    for _ in range(20):
        table.learn("a", 1, 0.010)
    many = table.bound("a", 1)
    assert few is not None
    assert many is not None
    assert few > many == pytest.approx(0.010)


def test_bounds_between_sizes_lie_between_them() -> None:
    table = LatencyTable()
    for rows, seconds in ((1, 0.002), (4, 0.005), (16, 0.017)):
        for _ in range(20):
            table.learn("a", rows, seconds)
    assert table.bound("a", 10) == pytest.approx(0.011)
    assert table.bound("a", 32) == pytest.approx(0.034)
    # A size in between is remembered with its class, and says the same of it.
    for _ in range(200):
        table.learn("a", 12, 0.026)
    assert table.bound("a", 12) == pytest.approx(0.026, rel=0.3)


def test_one_that_takes_longer_than_its_bound_adds_to_all_of_its_kind_for_a_while() -> None:
    table = LatencyTable()
    for model in ("a", "b"):
        for _ in range(20):
            table.learn(model, 1, 0.010, "slow")
            table.learn(model, 1, 0.010, "fast")
    for _ in range(5):
        table.learn("a", 1, 0.015, "slow")
    changed, same = table.bound("b", 1, "slow"), table.bound("b", 1, "fast")
    assert changed is not None
    assert changed > 0.014
    assert same == pytest.approx(0.010)


def test_a_worker_that_became_slower_is_slower_with_what_it_did_not_do_lately() -> None:
    table = LatencyTable()
    for model in ("a", "b"):
        for _ in range(20):
            table.learn(model, 1, 0.010)
    for _ in range(300):
        table.learn("a", 1, 0.015)
    assert table.bound("a", 1) == pytest.approx(0.015, rel=0.05)
    assert table.bound("b", 1) == pytest.approx(0.015, rel=0.1)


def test_files_have_bounds_of_their_own_and_share_what_is_expected() -> None:
    table = LatencyTable()
    for _ in range(20):
        table.learn("a", 1, 0.010)
    assert table.bound("a", 1, form=FILES) == pytest.approx(0.010)
    for _ in range(20):
        table.learn("a", 1, 0.010, form=FILES, elapsed_s=0.014)
    assert table.bound("a", 1, form=FILES) == pytest.approx(0.014)
    assert table.bound("a", 1) == pytest.approx(0.010)
    assert table.predict("a", 1) == pytest.approx(0.010)


def test_a_table_survives_its_document() -> None:
    table = LatencyTable()
    for number in range(100):
        table.learn("a", 1 + number % 16, 0.001 * (1 + number % 7), "kind")
    again = LatencyTable.from_document(json.loads(json.dumps(table.document())))
    for rows in range(1, 33):
        assert again.bound("a", rows, "kind") == pytest.approx(table.bound("a", rows, "kind"))
        assert again.predict("a", rows, "kind") == pytest.approx(table.predict("a", rows, "kind"))
    assert again.document() == table.document()


def test_a_document_by_hand_needs_the_two_times_of_each_size() -> None:
    row = {"kind": "", "model": "a", "rows": 4, "p50_s": 0.010, "p99_s": 0.012}
    table = LatencyTable.from_document({"latency": [row]})
    assert table.predict("a", 4) == pytest.approx(0.010)
    assert table.bound("a", 4) == pytest.approx(0.012)


@pytest.mark.parametrize(
    "change", [{"rows": 0}, {"p50_s": -1.0}, {"p99_s": "soon"}, {"form": "tape"}, {"kind": None}]
)
def test_a_document_that_says_nonsense_is_refused(change: dict[str, object]) -> None:
    row = {"kind": "", "model": "a", "rows": 4, "p50_s": 0.010, "p99_s": 0.012, **change}
    if change == {"kind": None}:
        del row["kind"]
    with pytest.raises(ValueError, match="row 0 of the latency table"):
        LatencyTable.from_document({"latency": [row]})


def mean_s(table: LatencyTable, model: str, rows: int) -> float:
    """What batches take in the mean, as policies see it."""
    return Speeds(table, rows).of(model, "").mean_s(rows)


def test_means_of_what_was_not_used_lately_follow_clear_changes_alone() -> None:
    table = LatencyTable()
    for model in ("used", "unused"):
        for _ in range(16):
            table.learn(model, 8, 0.010)
    for _ in range(3):
        table.learn("used", 8, 0.015)  # three slow ones by chance
    assert mean_s(table, "unused", 8) == pytest.approx(0.010)
    for _ in range(60):
        table.learn("used", 8, 0.020)
    assert 0.016 < mean_s(table, "unused", 8) < 0.021


def test_a_mean_hardly_follows_one_slow_batch_and_a_worker_that_became_slower_changes_no_order() -> (
    None
):
    table = LatencyTable()
    for _ in range(50):
        table.learn("quick", 8, 0.010)
        table.learn("slow", 8, 0.012)
    table.learn("quick", 8, 0.030)
    assert mean_s(table, "quick", 8) < mean_s(table, "slow", 8)
    for _ in range(100):
        table.learn("quick", 8, 0.020)  # the worker computes half as fast; the slow one is not used
    assert mean_s(table, "quick", 8) < mean_s(table, "slow", 8)


def test_variance_is_that_of_a_log_normal_distribution_and_none_where_all_take_as_long() -> None:
    row = {"kind": "", "model": "a", "rows": 4, "p50_s": 0.010, "p99_s": 0.010}
    assert LatencyTable.from_document({"latency": [row]}).plain("a", 4, "", PIXELS).scatter == 0.0
    sigma = 0.4
    row["p99_s"] = 0.010 * math.exp(2.326 * sigma)
    table = LatencyTable.from_document({"latency": [row]})
    assert mean_s(table, "a", 4) == pytest.approx(0.010 * math.exp(sigma**2 / 2))
    assert table.plain("a", 4, "", PIXELS).scatter == pytest.approx(math.exp(sigma**2) - 1)


def test_what_passes_until_an_idle_worker_begins_is_learned_for_its_kind() -> None:
    table = LatencyTable(hand_over_s=0.001)
    for _ in range(100):
        table.handed_over(0.003, "processor")
    assert table.hand_over_s("processor") == pytest.approx(0.003, rel=0.01)
    assert table.hand_over_s("another") == 0.001
    again = LatencyTable.from_document(json.loads(json.dumps(table.document())))
    assert again.hand_over_s("processor") == table.hand_over_s("processor")


def test_files_of_a_model_that_had_none_take_as_much_more_as_those_of_others() -> None:
    table = LatencyTable()
    for model, row_s in (("one", 0.001), ("other", 0.004)):
        for _ in range(16):
            for rows in (1, 8):
                table.learn(model, rows, rows * row_s, "kind")
    before = table.plain("other", 8, "kind", FILES)
    pixels = table.plain("other", 8, "kind", PIXELS)
    assert (before.mean_s, before.bound_s) == (pixels.mean_s, pixels.bound_s)
    for _ in range(50):
        table.learn("one", 8, 0.008, "kind", FILES, elapsed_s=0.008 + 8 * 0.002)
    told = table.plain("other", 8, "kind", FILES)
    assert told.mean_s == pytest.approx(0.032 + 0.016, rel=1e-3)
    assert table.plain("other", 8, "kind", PIXELS).mean_s == pytest.approx(0.032)
    assert table.bound("other", 8, "kind", FILES) == pytest.approx(0.048, rel=0.1)
    again = LatencyTable.from_document(json.loads(json.dumps(table.document())))
    assert again.plain("other", 8, "kind", FILES).mean_s == pytest.approx(told.mean_s)
    table.learn("other", 8, 0.032, "kind", FILES, elapsed_s=0.035)
    assert table.plain("other", 8, "kind", FILES).mean_s == pytest.approx(0.035)
