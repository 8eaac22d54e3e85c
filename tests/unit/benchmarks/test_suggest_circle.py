"""The circle's order and its table."""

from benchmarks.suggest_circle import plan, table


def test_what_is_compared_comes_together() -> None:
    found = list(plan([8, 4], 2, ["suggested", "random"]))
    assert found == [
        (8, "suggested", 0), (8, "random", 0), (8, "suggested", 1), (8, "random", 1),
        (4, "suggested", 0), (4, "random", 0), (4, "suggested", 1), (4, "random", 1),
    ]  # fmt: skip


def test_the_table_has_means_of_the_seeds_there_are() -> None:
    results = {
        "8/random/0": {"energy": 0.5, "before": 0.6, "after": 0.8},
        "8/random/1": {"energy": 0.7, "before": 0.5, "after": 0.9},
        "16/suggested/0": {"energy": 0.5, "before": 0.4, "after": 0.85},
        "16/suggested/1": {"energy": 0.5, "before": 0.4},
        "16/random/0": {"energy": 0.3, "before": 0.2},
    }
    assert table(results, [8, 16]).splitlines()[2:] == [
        "| 8 | random | 60.0% | 55.0% | 85.0% | 80.0%, 90.0% |",
        "| 16 | suggested | 50.0% | 40.0% | 85.0% | 85.0% |",
        "| 16 | random | 30.0% | 20.0% | - |  |",
    ]
