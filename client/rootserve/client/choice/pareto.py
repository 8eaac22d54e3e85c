"""What follows from accuracies and rates: the Pareto set, and which variant to take. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from rootserve.client.choice.document import Place, Variant


def placed(variants: Sequence[Variant]) -> list[Variant]:
    """The variants with their places; one without an accuracy or a rate has none.

    A variant is dominated if another is at least as good in accuracy and rate, and better in one. It is
    near the set if none of those that dominate it is surely faster: the intervals of the rates overlap.
    """
    return [_placed(each, variants) for each in variants]


def _placed(variant: Variant, variants: Sequence[Variant]) -> Variant:
    if variant.accuracy is None or variant.rate is None:
        return replace(variant, place=None, dominated_by=None)
    better = [other for other in variants if _dominates(other, variant)]
    if not better:
        return replace(variant, place="set", dominated_by=None)
    most = max(better, key=lambda other: (other.accuracy or 0.0, other.rate or 0.0))
    place: Place = "dominated" if any(_surely(other, variant) for other in better) else "near"
    return replace(variant, place=place, dominated_by=most.name)


def _dominates(one: Variant, other: Variant) -> bool:
    if one.accuracy is None or one.rate is None or other.accuracy is None or other.rate is None:
        return False
    pairs = ((one.accuracy, other.accuracy), (one.rate, other.rate))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _surely(faster: Variant, slower: Variant) -> bool:
    """Whether the intervals of the rates do not overlap."""
    if faster.least is None or slower.rate is None:
        return False
    return faster.least > (slower.high if slower.high is not None else slower.rate)


def pareto_set(variants: Sequence[Variant]) -> list[Variant]:
    """Those of the set, the fastest last."""
    return sorted(
        (each for each in variants if each.place == "set"), key=lambda each: each.rate or 0.0
    )


def holding(variants: Sequence[Variant], rate: float) -> list[Variant]:
    """Those with an accuracy that hold the rate as far as is known, the most accurate first."""
    able = [
        each
        for each in variants
        if each.accuracy is not None and each.rate is not None and each.rate >= rate
    ]
    return sorted(able, key=lambda each: (-(each.accuracy or 0.0), -(each.rate or 0.0)))


def recommend(variants: Sequence[Variant], p99_s: float, rate: float | None) -> str:
    """Which variant to take, in a sentence or three.

    Args:
        variants: With their places.
        p99_s: The objective, in seconds.
        rate: The rate that is to be held, in requests per second; None if it was not told.
    """
    goal = f"p99 within {p99_s * 1e3:g} ms"
    best = pareto_set(variants)
    if not best:
        found = [each for each in variants if each.rate is not None]
        if not found:
            return f"no rate was found at which a variant holds {goal}"
        fastest = max(found, key=lambda each: each.rate or 0.0)
        return (
            f"no accuracies are known; {fastest.name} holds {goal} at the highest rate, "
            f"{_up_to(fastest)}"
        )
    if rate is not None:
        return _for_rate(variants, best, goal, rate)
    if len(best) == 1:
        return f"{_described(best[0])} is the most accurate and holds {goal} at the highest rate"
    return (
        f"with {goal}, {_described(best[0])} is the most accurate and {_described(best[-1])} holds "
        f"the highest rate{_between(best)}"
    )


def _between(best: Sequence[Variant]) -> str:
    names = [each.name for each in best[1:-1]]
    return f"; between them {', '.join(names)}" if names else ""


def _for_rate(variants: Sequence[Variant], best: Sequence[Variant], goal: str, rate: float) -> str:
    asked = f"{rate:,.6g} requests/s with {goal}"
    able = holding(variants, rate)
    if not able:
        fastest = best[-1]
        return f"no variant holds {asked}; the fastest, {fastest.name}, goes {_up_to(fastest)}"
    first = able[0]
    text = f"{_described(first)} is the most accurate that holds {asked}"
    if first.least is not None and first.least >= rate:
        return text
    # Where the most accurate one is not sure of it, one that is gets named as well.
    sure = next((each for each in able if each.least is not None and each.least >= rate), None)
    doubt = f"{text}, which lies within its uncertainty"
    return f"{doubt}, and {_described(sure)} is sure" if sure else f"{doubt}, and none is sure"


def _described(variant: Variant) -> str:
    return f"{variant.name} (accuracy {variant.accuracy:.4f}, {_up_to(variant)})"


def _up_to(variant: Variant) -> str:
    if variant.limit is None or variant.low is None or variant.high is None:
        return f"at least {variant.held:,.4g}/s"
    return f"up to {variant.limit:,.4g}/s, 95 % interval {variant.low:,.4g} to {variant.high:,.4g}"
