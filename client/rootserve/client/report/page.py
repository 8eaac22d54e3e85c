"""The report as one HTML page: the summary first, then why, and last what it was measured with."""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element

from rootserve.client.report import comparisons, figures
from rootserve.client.report.figures import Figure, Report
from rootserve.client.report.markup import Content, add, element, page, table
from rootserve.client.report.words import (
    PERCENTILES,
    STAGE_WORDS,
    STAGES,
    loop_words,
    percentile_name,
    run_words,
)
from rootserve.client.units import count, duration, percent

# Widths a figure is drawn for; the style sheet shows the one that fits the screen.
_WIDE, _NARROW = 720, 350
# What a page may load: nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_KINDS = {
    "sweep": "a sweep of {count} runs; figures of single runs below are of that with the highest "
    "throughput, {label}",
    "find_max": "a search for the highest rate, {count} runs; figures of single runs below are of "
    "the highest that held the objective, {label}",
    "pairs": "{count} runs of A and B in turns; figures of single runs below are of {label}",
}


def render(report: Report) -> str:
    """The page; nothing in it is loaded from elsewhere and nothing in it runs."""
    title = f"{report['model']}: load report"
    style = files("rootserve.client.report").joinpath("page.css").read_text(encoding="utf-8")
    main = element("main", *_summary(report), *_sections(report), *_appendix(report))
    body = element("body", _header(report), main, _footer(report))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style),
    )
    return page(element("html", head, body, lang="en"))


def _header(report: Report) -> Element:
    words = run_words(report)
    if kind := _KINDS.get(report["kind"]):
        of = kind.format(count=len(report["levels"]), label=report.get("label"))
        words = f"{of}: {words}"
    return element(
        "header",
        element("p", "rootserve load", class_="program"),
        element("h1", str(report["model"]).replace(",", ", ")),
        element("p", words),
        element(
            "p",
            f"{_instant(report['started_at'])}, {report['window_s']:.4g} s measured",
            class_="faint",
        ),
    )


def _instant(text: str) -> str:
    """An instant of ISO 8601 as people read it."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return text


def _summary(report: Report) -> list[Content]:
    """The figures one looks for first, whether they can be trusted, and what they mean."""
    times = report["response_time_s"]
    requests = report["requests"]
    failed = sum(report["errors"].values()) + report["unfinished"]
    tiles = [
        (f"{report['throughput_rows_per_s']:,.1f}", "rows/s answered", None),
        (duration(times["p50"]), "response time, p50", None),
        (duration(times["p99"]), "response time, p99", None),
        (
            percent(failed / requests) if requests else "-",
            f"failed, {count(failed)} of {count(requests)}",
            "bad" if failed else None,
        ),
    ]
    if report["offered_requests_per_s"] and report["loop"] == "open":
        offered = f"{report['offered_requests_per_s']:,.1f}"
        tiles.insert(1, (offered, "requests/s due", None))
    made: list[Content] = [
        element(
            "dl",
            *(
                element("div", element("dt", name), element("dd", value, class_=style))
                for value, name, style in tiles
            ),
            class_="tiles",
        )
    ]
    if objective := report.get("objective"):
        sure = "ok" if objective["met"] else "bad"
        complete = (report.get("find_max") or {}).get("complete", True)
        style = f"verdict {sure if objective.get('decided', complete) else 'unsure'}"
        made.append(element("p", objective["text"], class_=style))
    made += _warnings(report)
    made.append(element("p", loop_words(report["loop"])))
    made.append(_times(report))
    return made


def _warnings(report: Report) -> list[Content]:
    """What casts doubt on the figures; whether the client was the bottleneck is always said."""
    items: list[Content] = [element("li", str(each)) for each in report.get("warnings") or []]
    made: list[Content] = []
    if report.get("client_limited"):
        made.append(
            element(
                "p",
                element("strong", "The client was the bottleneck. "),
                "These figures are in part its doing, and not the server's alone.",
            )
        )
    if items:
        made.append(element("ul", *items))
    box = element("div", *made, class_="warning", role="note", aria_label="Warnings")
    late = f"{count(report['late_departures'])} requests left more than 1 ms late"
    if held_back := report.get("held_back"):
        late += f", {count(held_back)} of them because as many as allowed were under way"
    cores = f"{report['client_cpu_cores']:.2f} processor cores"
    pace = element("p", f"The client kept the pace: it used {cores}, and {late}.", class_="faint")
    return [box if made else None, None if report.get("client_limited") else pace]


def _times(report: Report) -> Element:
    rows = []
    for key, name in (
        ("response_time_s", "response time"),
        ("service_time_s", "service time"),
    ):
        times = report[key]
        columns = (*PERCENTILES, "mean", "max")
        rows.append([name, *(duration(times.get(column)) for column in columns)])
    heads = [percentile_name(name) for name in PERCENTILES]
    caption = (
        "Times of the answered requests: response from the instant due, service from the sending"
    )
    if report["unfinished"]:
        caption += "; a percentile among the unfinished ones is not known (-)"
    return table(caption, ["time", *heads, "mean", "max"], rows)


def _sections(report: Report) -> list[Content]:
    made = [
        *comparisons.pairs(report),
        *comparisons.search(report),
        *comparisons.throughput_latency(report),
        *figures.stages(report),
        *figures.over_time(report),
        *figures.quantiles(report),
        *figures.outcomes(report),
        *figures.batch_rows(report),
    ]
    sections: list[Content] = []
    for figure in made:
        section = _figure(figure)
        if figure.title == "The same as shares":
            add(section, _stage_words(report))
        sections.append(section)
    if not report.get("stages_by_percentile_s"):
        sections.append(
            element("p", "The answers told no timeline: where the time went is not known.")
        )
    for key, name in (("by_model", "model"), ("by_server", "server")):
        parts = report.get(key) or []
        if len(parts) > 1:
            head = [name, "requests", "failed", "rows/s", "p50", "p90", "p99", "p99.9"]
            heading = element("h2", f"By {name}")
            rows = comparisons.parts_rows(parts)
            sections.append(element("section", heading, table(f"Figures by {name}", head, rows)))
    return sections


def _figure(figure: Figure) -> Element:
    legend = [
        element("li", element("span", class_=f"key {style}"), name) for style, name in figure.legend
    ]
    section = element(
        "section",
        element("h2", figure.title),
        element("p", figure.caption, class_="caption"),
        element("ul", *legend, class_="legend") if legend else None,
        element("figure", figure.draw(_WIDE), class_="wide"),
        element("figure", figure.draw(_NARROW), class_="narrow"),
    )
    if figure.rows:
        numbers = table(figure.title, figure.head, figure.rows)
        section.append(element("details", element("summary", "The numbers"), numbers))
    return section


def _stage_words(report: Report) -> Element:
    """What the stages are, and the percentiles of each by itself."""
    items: list[Content] = []
    for stage, words in STAGE_WORDS.items():
        items += [element("dt", STAGES[stage]), element("dd", words)]
    by_itself = None
    if times := report.get("stage_times_s"):
        rows = [
            [STAGES[stage], *(duration(times[stage].get(name)) for name in (*PERCENTILES, "max"))]
            for stage in STAGES
            if times.get(stage)
        ]
        head = ["stage", *(percentile_name(name) for name in PERCENTILES), "max"]
        by_itself = table("Percentiles of each stage by itself; they do not add up", head, rows)
    return element(
        "details", element("summary", "What the stages are"), element("dl", *items), by_itself
    )


def _appendix(report: Report) -> list[Content]:
    """With what it was measured."""
    made: list[Content] = [element("h2", "How it was measured")]
    if command := report.get("command"):
        made.append(element("pre", str(command), tabindex=0))
    trials = report.get("trials") or []
    if len(trials) > 1:
        rows = [
            [f"{t['start_s']:.1f}-{t['end_s']:.1f} s", f"{t['throughput_requests_per_s']:,.1f}",
             duration(t["p99_s"]), "yes" if t["counted"] else "no"]
            for t in trials
        ]  # fmt: skip
        head = ["window", "requests/s", "p99", "counted"]
        made.append(table("Windows measured until the figures were stable", head, rows))
    for key, name in (("options", "Options"), ("server", "Server"), ("client", "Client")):
        rows = [[path, text] for path, text in _flat(report.get(key) or {})]
        made.append(
            element(
                "details",
                element("summary", name),
                table(name, ["what", "value"], rows, words=2),
            )
        )
    return made


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Every leaf of a JSON value with the path to it; lists of plain values stay one leaf."""
    if isinstance(value, Mapping) and value:
        return [leaf for key, each in value.items() for leaf in _flat(each, f"{path}.{key}")]
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return [leaf for n, each in enumerate(value) for leaf in _flat(each, f"{path}.{n}")]
    if isinstance(value, list):
        return [(path.lstrip("."), ", ".join(str(each) for each in value) or "-")]
    words = {"None": "-", "True": "yes", "False": "no", "{}": "-"}
    return [(path.lstrip("."), words.get(str(value), str(value)))]


def _footer(report: Report) -> Element:
    version = (report.get("client") or {}).get("version")
    return element(
        "footer",
        f"rootserve {version}, {report['schema']}. Times are those of this run on this machine; "
        "compare two servers or variants by runs that take turns (rootserve compare).",
    )
