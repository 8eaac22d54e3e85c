"""A choice as one HTML page: what follows, the picture and its numbers, how it was measured."""

from pathlib import Path
from xml.etree.ElementTree import Element

from rootserve.client.choice.columns import rate_text
from rootserve.client.choice.document import Choice
from rootserve.client.choice.pareto import holding, pareto_set
from rootserve.client.choice.picture import picture
from rootserve.client.choice.text import explained, notes, sentence
from rootserve.client.files import write_text
from rootserve.client.report.frame import details_of, instant, whole_page
from rootserve.client.report.markup import Content, element
from rootserve.client.telling import time_left
from rootserve.client.units import percent


def write_html(choice: Choice, path: Path) -> None:
    """Write it.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(render(choice), path)


def render(choice: Choice) -> str:
    """The page; nothing in it is loaded from elsewhere and nothing in it runs."""
    drawn = [figure.section(unfolded=True) for figure in picture(choice)]
    main = element("main", *_summary(choice), *drawn, *_appendix(choice))
    title = f"{len(choice.variants)} variants: which to take"
    return whole_page(title, (_header(choice), main, _footer(choice)))


def _header(choice: Choice) -> Element:
    rows = f", {choice.rows} images per request" if choice.rows > 1 else ""
    cpu = choice.server.get("cpu")
    return element(
        "header",
        element("p", "rootserve choose", class_="program"),
        element("h1", "Which variant to take"),
        element(
            "p",
            f"Accuracy against the highest rate at which 99 of 100 requests are answered within "
            f"{choice.p99_s * 1e3:g} ms{rows}; {len(choice.variants)} variants"
            + (f" on {cpu}." if cpu else "."),
        ),
        element("p", f"{instant(choice.started_at)}, {time_left(choice.took_s)}", class_="faint"),
    )


def _summary(choice: Choice) -> list[Content]:
    best = pareto_set(choice.variants)
    able = best if choice.rate is None else holding(choice.variants, choice.rate)
    doubtful = not choice.complete or (able and (able[0].least or 0.0) < (choice.rate or 0.0))
    sure = "unsure" if doubtful else "ok" if able else "bad"
    made: list[Content] = [_tiles(choice)] if best else []
    made.append(element("p", sentence(choice.recommendation), class_=f"verdict {sure}"))
    items = [element("li", f"{note}: {', '.join(names)}") for note, names in notes(choice).items()]
    if choice.interrupted:
        items.insert(0, element("li", "ended early: what was measured until then is shown"))
    elif not choice.complete:
        items.insert(0, element("li", "not every search came to its end"))
    if items:
        made.append(element("ul", *items, class_="caption"))
    made.append(element("p", explained(choice), class_="caption"))
    return made


def _tiles(choice: Choice) -> Element:
    best = pareto_set(choice.variants)
    first, last = best[0], best[-1]
    tiles = [
        (percent(first.accuracy), f"the most accurate: {first.name}"),
        (f"{rate_text(last.rate or 0.0)}/s", f"the highest rate: {last.name}"),
    ]
    if choice.rate is not None and (able := holding(choice.variants, choice.rate)):
        found = (percent(able[0].accuracy), f"at {rate_text(choice.rate)}/s: {able[0].name}")
        tiles.append(found)
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for value, name in tiles),
        class_="tiles",
    )


def _appendix(choice: Choice) -> list[Content]:
    made: list[Content] = [element("h2", "How it was measured")]
    if choice.command:
        made.append(element("pre", choice.command, tabindex=0))
    made += [details_of("Server", choice.server), details_of("Client", choice.client)]
    return made


def _footer(choice: Choice) -> Element:
    version = choice.client.get("version")
    return element(
        "footer",
        f"rootserve {version}, {choice.schema}. Rates are those of this run on this machine, in which "
        "the variants took turns.",
    )
