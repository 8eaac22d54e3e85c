"""Numbers as people read them."""


def duration(seconds: float | None) -> str:
    """A time with three significant digits and a fitting unit: "850 µs", "12.3 ms", "1.50 s"."""
    if seconds is None:
        return "-"
    # The limits lie where rounding to three digits would reach the next unit.
    if seconds < 999.5e-6:
        return f"{_three_digits(seconds * 1e6)} µs"
    if seconds < 999.5e-3:
        return f"{_three_digits(seconds * 1e3)} ms"
    return f"{_three_digits(seconds)} s"


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def count(value: int) -> str:
    """A whole number with separators: "966,986"."""
    return f"{value:,}"


def millions(value: int) -> str:
    """A large number in millions: "222.5 M"."""
    return f"{value / 1e6:,.1f} M"


def percent(share: float | None) -> str:
    """A share 0..1 in percent: "91.25%"."""
    return "-" if share is None else f"{share:.2%}"
