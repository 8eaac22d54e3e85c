"""How refusals quote what came: cut, so that a status stays small whatever a caller sends."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST_QUOTE = 80
_MOST_ITEMS = 8
LONGEST_TEXT = 1000
"""Bytes of a status's text. On the wire each may take three, and metadata of 8 KiB may be refused."""


def quote(text: str) -> str:
    """``text`` in quotation marks, its end left out if it is long."""
    if len(text) <= _LONGEST_QUOTE:
        return repr(text)
    return f"{text[:_LONGEST_QUOTE]!r}... ({len(text)} characters)"


def listing(items: Iterable[object]) -> str:
    """``items`` with commas between them, the last ones left out if they are many."""
    kept = list(items)
    text = ", ".join(str(item)[:_LONGEST_QUOTE] for item in kept[:_MOST_ITEMS])
    return text if len(kept) <= _MOST_ITEMS else f"{text}, ... ({len(kept)} in all)"


def shorten(text: str) -> str:
    """``text`` as a status takes it: at most :data:`LONGEST_TEXT` bytes of UTF-8."""
    content = text.encode(errors="replace")
    if len(content) <= LONGEST_TEXT:
        return text
    return content[: LONGEST_TEXT - 3].decode(errors="ignore") + "..."
