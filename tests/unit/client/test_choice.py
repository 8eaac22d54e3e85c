"""What follows from accuracies and rates, and how it is written down and shown."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rootserve.client.choice.document import Choice, Variant, read_choice, write_choice
from rootserve.client.choice.page import render
from rootserve.client.choice.pareto import holding, pareto_set, placed, recommend
from rootserve.client.choice.plan import Plan
from rootserve.client.choice.text import print_choice, sentence
from rootserve.client.errors import InputError
from rootserve.client.load.report import Step
from tests.support.choices import choice, family, variant

figures = st.one_of(st.none(), st.sampled_from([0.25, 0.5, 0.75]))
rates = st.one_of(st.none(), st.sampled_from([10.0, 20.0, 40.0, 400.0]))


@given(st.lists(st.tuples(figures, rates), max_size=7))
def test_the_set_is_of_those_that_nobody_dominates(known: list[tuple[float, float]]) -> None:
    variants = placed([variant(f"v{n}", *each) for n, each in enumerate(known)])
    for each in variants:
        if each.accuracy is None or each.rate is None:
            assert (each.place, each.dominated_by) == (None, None)
            continue
        better = {
            other.name
            for other in variants
            if other.accuracy is not None
            and other.rate is not None
            and other.accuracy >= each.accuracy
            and other.rate >= each.rate
            and (other.accuracy, other.rate) != (each.accuracy, each.rate)
        }
        assert (each.place == "set") == (not better)
        assert (each.dominated_by in better) == bool(better)
    best = pareto_set(variants)
    assert bool(best) == any(each.place is not None for each in variants)
    # From the slowest to the fastest, which are the less accurate the faster they are.
    accuracies = [each.accuracy for each in best]
    assert accuracies == sorted(accuracies, reverse=True)


def test_what_only_the_uncertainty_keeps_out_is_near_the_set() -> None:
    best, near, far = placed([variant("a", 0.9, 100), variant("b", 0.8, 95), variant("c", 0.8, 50)])
    assert [best.place, near.place, far.place] == ["set", "near", "dominated"]
    assert far.dominated_by == "a"
    # Without intervals there is only what was seen.
    seen = [replace(each, low=None, high=None, limit=None) for each in (best, near, far)]
    assert [each.place for each in placed(seen)] == ["set", "dominated", "dominated"]


def test_the_most_accurate_that_holds_a_rate_is_recommended() -> None:
    variants = placed(
        [variant("big", 0.92, 100), variant("mid", 0.91, 200), variant("small", 0.9, 400)]
    )
    assert [each.name for each in holding(variants, 150)] == ["mid", "small"]
    assert recommend(variants, 0.05, 150) == (
        "mid (accuracy 0.9100, up to 200/s, 95 % interval 190 to 212) is the most accurate that holds "
        "150 requests/s with p99 within 50 ms"
    )
    # 195 is within what is known of mid's limit.
    assert recommend(variants, 0.05, 195).endswith(
        "which lies within its uncertainty, and small (accuracy 0.9000, up to 400/s, 95 % interval "
        "380 to 424) is sure"
    )
    assert recommend(variants, 0.05, 395).endswith("and none is sure")
    assert recommend(variants, 0.05, 1000) == (
        "no variant holds 1,000 requests/s with p99 within 50 ms; the fastest, small, goes up to 400/s, "
        "95 % interval 380 to 424"
    )


def test_without_a_rate_the_ends_of_the_set_are_told() -> None:
    variants = placed(
        [variant("big", 0.92, 100), variant("mid", 0.91, 200), variant("small", 0.9, 400)]
    )
    text = recommend(variants, 0.05, None)
    assert text.startswith("with p99 within 50 ms, big (accuracy 0.9200")
    assert "small (accuracy 0.9000" in text
    assert text.endswith("holds the highest rate; between them mid")
    only = recommend(placed([variant("big", 0.92, 100)]), 0.05, None)
    assert only.endswith("is the most accurate and holds p99 within 50 ms at the highest rate")


def test_what_is_not_known_is_said() -> None:
    unknown = [variant("a", None, 100), variant("b", None, 300)]
    assert recommend(placed(unknown), 0.05, None).startswith("no accuracies are known; b holds")
    assert "no rate was found" in recommend(placed([variant("a", 0.9, None)]), 0.05, 10)
    seen = placed([variant("a", 0.9, None, held=80.0)])
    assert "at least 80/s" in recommend(seen, 0.05, 70)
    assert sentence("no rate") == "No rate."
    assert sentence("nin-orig (x) is") == "nin-orig (x) is."


@pytest.mark.parametrize(
    ("models", "minutes", "seconds"),
    [(1, None, 60), (5, None, 300), (14, None, 540), (40, None, 540), (14, 2.0, 120)],
)
def test_the_time_is_bounded(models: int, minutes: float | None, seconds: float) -> None:
    assert Plan(p99_s=0.05, minutes=minutes).budget_s(models) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"p99_s": 0.0}, "slo-p99-ms 0: expected more than 0"),
        ({"p99_s": float("nan")}, "slo-p99-ms nan"),
        (
            {"p99_s": 0.05, "rate": -1.0},
            "rate -1: expected more than 0 and up to 100,000 requests per s",
        ),
        (
            {"p99_s": 0.05, "minutes": 0.0},
            "minutes 0: expected more than 0 and up to 1,440 minutes",
        ),
        ({"p99_s": 0.05, "rows": 0}, "rows 0: expected at least 1"),
    ],
)
def test_bad_plans_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        Plan(**settings)


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    one = variant("nin-orig", steps=(Step(80.0, True, 0.01, 3), Step(90.0, None, None, 4)))
    made = choice([one, variant("nin-col-4", None, None, note="random weights")], rate=70.0)
    path = tmp_path / "choice.json"
    write_choice(made, path)
    read = read_choice(path)
    assert replace(read, variants=()) == replace(made, variants=())
    write_choice(read, again := tmp_path / "again.json")
    assert again.read_text() == path.read_text()
    assert json.loads(path.read_text())["schema"] == "rootserve.choice/1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("[]", "has the schema None"),
        ('{"schema": "rootserve.load/1"}', "has the schema 'rootserve.load/1'"),
        ('{"schema": "rootserve.choice/1"}', "is not whole: Object missing required field"),
    ],
)
def test_what_is_no_choice_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "choice.json"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(words)):
        read_choice(path)


def printed(made: Choice) -> str:
    screen = Console(file=io.StringIO(), width=80, highlight=False)
    print_choice(screen, made)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_the_table_fits_80_columns_and_says_what_is_missing() -> None:
    wide = variant("resnet50-root-64", 0.7571, 1234.5)
    missing = variant("[b]x[/b]", None, None, complete=False, note="search not finished (0 runs)")
    text = printed(choice([wide, missing, variant("c", client_limited=True)]))
    assert max(map(len, text.splitlines())) <= 80
    row = ["resnet50-root-64", "75.71%", "1,234", "5.5%", "1.23", "1.93", "MB", "in", "the", "set"]
    assert row in [line.split() for line in text.splitlines()]
    assert "search not finished (0 runs): [b]x[/b]" in text
    assert "this client was the bottleneck in runs that missed" in text


class TestPage:
    def test_it_holds_every_variant_and_what_follows(self) -> None:
        made = choice(family(), rate=500.0)
        page = render(made)
        assert all(f">{each.name}</th>" in page for each in made.variants)
        assert "is the most accurate that holds 500 requests/s" in page
        # Sure is only nin-root-8, so the verdict is amber.
        assert 'class="verdict unsure"' in page
        assert 'class="verdict ok"' in render(choice(family(), rate=450.0))
        assert 'class="verdict bad"' in render(choice(family(), rate=900.0))
        assert "<script" not in page
        assert "http" not in page.replace("http-equiv", "")

    def test_an_unfinished_one_is_amber_and_says_so(self) -> None:
        unfinished = [replace(each, complete=False) for each in family()]
        page = render(choice(unfinished))
        assert 'class="verdict unsure"' in page
        assert "not every search came to its end" in page
        assert "ended early" in render(choice(unfinished, interrupted=True))

    def test_names_are_escaped_and_nothing_is_needed(self) -> None:
        page = render(choice([variant("<i>x</i>", None, None)]))
        assert "<i>x" not in page
        assert "<svg" not in page  # nothing to be drawn

    @pytest.mark.parametrize("few", [1, 2, 14])
    def test_all_names_are_written(self, few: int) -> None:
        chosen: list[Variant] = family()[:few]
        page = render(choice(chosen))
        for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
            names = re.findall(r'class="name middle">(.*?)</text>', drawing)
            assert sorted(names) == sorted(each.name.removeprefix("nin-") for each in chosen)
