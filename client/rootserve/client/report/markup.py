"""HTML and SVG as trees of elements: whatever text is put in comes out escaped."""

import re
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

Content = Element | str | None
_OPTION = re.compile(r"(--[a-z][a-z-]*)")


def element(name: str, /, *content: Content, **attributes: object) -> Element:
    """An element with its attributes and content; None is left out of both.

    A trailing underscore of an attribute's name is dropped, others become hyphens: `class_`,
    `aria_label`. Numbers are written with at most two decimals.
    """
    made = Element(
        name,
        {_name(key): _text(value) for key, value in attributes.items() if value is not None},
    )
    add(made, *content)
    return made


def add(parent: Element, *content: Content) -> None:
    """Put more content at the end of an element."""
    for each in content:
        if isinstance(each, Element):
            parent.append(each)
        elif each is not None and len(parent):
            parent[-1].tail = (parent[-1].tail or "") + each
        elif each is not None:
            parent.text = (parent.text or "") + each


def unbroken(text: str) -> list[Content]:
    """The text, in which no line ends within an option such as ``--processes``."""
    parts = _OPTION.split(text)
    return [
        element("span", part, class_="option") if n % 2 else part for n, part in enumerate(parts)
    ]


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1
) -> Element:
    """A table that scrolls by itself when it is too wide; its first `words` columns are text."""
    body = element("tbody")
    for row in rows:
        line = element("tr")
        for n, cell in enumerate(row):
            style = None if n < words else "number"
            line.append(
                element("th", cell, scope="row") if n == 0 else element("td", cell, class_=style)
            )
        body.append(line)
    heads = [
        element("th", text, scope="col", class_=None if n < words else "number")
        for n, text in enumerate(head)
    ]
    made = element("table", element("thead", element("tr", *heads)), body, aria_label=caption)
    # Focusable, so that the keyboard can scroll it too. The caption stays where it is.
    scroll = element("div", made, class_="scroll", tabindex=0, role="region", aria_label=caption)
    return element("div", element("p", caption, class_="caption"), scroll)


def page(root: Element) -> str:
    """The whole document as text."""
    return "<!doctype html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
