"""What was probably meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The question whether another one was meant; "" where none is as alike as ``cutoff`` (0 to 1) says."""
    near = difflib.get_close_matches(name, list(known), 1, cutoff)
    return f"; did you mean {near[0]}?" if near else ""
