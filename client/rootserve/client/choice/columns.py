"""The figures of a choice's variants, each declared once, for terminal, page and picture."""

from operator import attrgetter

from rootserve.client.choice.document import Variant
from rootserve.client.report.columns import Column, pick
from rootserve.client.units import count, percent

PLACES = {"set": "in the set", "near": "near it", "dominated": "no"}


def rate_text(rate: float) -> str:
    """A rate with four digits: "1,234", "98.76"."""
    return f"{rate:,.0f}" if rate >= 1000 else f"{rate:.4g}"


def _rate(variant: Variant) -> str | None:
    if variant.limit is not None:
        return rate_text(variant.limit)
    return None if variant.held is None else f"{rate_text(variant.held)} or more"


def _uncertainty(variant: Variant) -> float | None:
    if variant.limit is None or variant.low is None or variant.high is None:
        return None
    return (variant.high - variant.low) / 2 / variant.limit


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"


_COLUMNS: tuple[Column[Variant], ...] = (
    Column("variant", attrgetter("name")),
    Column("accuracy", attrgetter("accuracy"), percent),
    Column("requests/s", _rate),
    Column("±", _uncertainty, lambda share: f"{share:.1%}" if share < 1 else "> 100%"),
    Column("ms/image", attrgetter("compute_ms"), lambda value: f"{value:.3g}"),
    Column("weights", attrgetter("weights_bytes"), _megabytes),
    Column("Pareto set", attrgetter("place"), PLACES.__getitem__),
    Column("dominated by", attrgetter("dominated_by")),
    Column("runs", lambda variant: len(variant.steps), count),
    Column(
        "16 callers got",
        attrgetter("callers_requests_per_s"),
        lambda value: f"{rate_text(value)}/s",
    ),
    Column("largest batch", attrgetter("batch_rows"), count),
    Column("engine", attrgetter("engine")),
    Column("precision", attrgetter("precision")),
)
TERMINAL = pick(
    _COLUMNS, "variant", "accuracy", "requests/s", "±", "ms/image", "weights", "Pareto set"
)
PAGE = _COLUMNS


def in_order(variants: tuple[Variant, ...] | list[Variant]) -> list[Variant]:
    """The most accurate first; those without an accuracy last."""
    return sorted(variants, key=lambda each: (-(each.accuracy or -1.0), -(each.rate or 0.0)))
