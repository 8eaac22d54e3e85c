"""Models by patterns of their names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from rootserve.client.catalog import Model
from rootserve.client.errors import InputError

_SHOWN = 20


def select(models: Sequence[Model], patterns: str) -> list[Model]:
    """Those whose names match one of the patterns, in their order.

    Args:
        models: Of which to choose.
        patterns: As shells match files, several with commas between: "nin-orig,nin-root-*".

    Raises:
        InputError: One of the patterns matches none.
    """
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    for pattern in wanted:
        if not any(fnmatchcase(model.name, pattern) for model in models):
            names = ", ".join(model.name for model in models[:_SHOWN])
            more = f" and {len(models) - _SHOWN} more" if len(models) > _SHOWN else ""
            raise InputError(f"models {pattern!r}: matches none of {names or 'no models'}{more}")
    return [
        model for model in models if any(fnmatchcase(model.name, pattern) for pattern in wanted)
    ]
