"""What all pages have in common: head and style, and tables of what something was measured with."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element

from rootserve.client.report.markup import element, page, table

# What a page may load: nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def whole_page(title: str, content: Sequence[Element], style: str = "") -> str:
    """A page, with `style` added to its sheet; nothing is loaded from elsewhere and nothing runs."""
    sheet = files("rootserve.client.report").joinpath("page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", sheet + style),
    )
    return page(element("html", head, element("body", *content), lang="en"))


def instant(text: str) -> str:
    """An instant of ISO 8601 as people read it."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return text


def details_of(name: str, values: object) -> Element:
    """Every leaf of a JSON value, for who unfolds it."""
    rows = [[path, text] for path, text in _flat(values)]
    numbers = table(name, ["what", "value"], rows, words=2)
    return element("details", element("summary", name), numbers)


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Every leaf of a JSON value with the path to it; lists of plain values stay one leaf."""
    if isinstance(value, Mapping) and value:
        return [leaf for key, each in value.items() for leaf in _flat(each, f"{path}.{key}")]
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return [leaf for n, each in enumerate(value) for leaf in _flat(each, f"{path}.{n}")]
    if isinstance(value, list | tuple):
        return [(path.lstrip("."), ", ".join(str(each) for each in value) or "-")]
    words = {"None": "-", "True": "yes", "False": "no", "{}": "-"}
    return [(path.lstrip("."), words.get(str(value), str(value)))]
