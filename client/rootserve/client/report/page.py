"""The report as one HTML page: the summary first, then why, and last what it was measured with."""

from dataclasses import replace
from operator import itemgetter
from typing import Any
from xml.etree.ElementTree import Element

from rootserve.client.load.comparison import unlike_limits
from rootserve.client.load.report import Report
from rootserve.client.report import attained, comparisons, figures
from rootserve.client.report.columns import ATTAINED, PART, TIMES, TRIAL, Column
from rootserve.client.report.figures import Figure, table_of
from rootserve.client.report.frame import details_of, instant, whole_page
from rootserve.client.report.markup import Content, element, unbroken
from rootserve.client.report.words import loop_words, run_words
from rootserve.client.stages import STAGES
from rootserve.client.units import count, duration, percent

_KINDS = {
    "sweep": "a sweep of {count} runs; figures of single runs below are of that with the highest "
    "throughput, {label}",
    "find_max": "a search for the highest rate, {count} runs; figures of single runs below are of "
    "the highest that held the objective, {label}",
    "pairs": "{count} runs of A and B in turns; figures of single runs below are of {label}",
}


def render(report: Report) -> str:
    """The page; nothing in it is loaded from elsewhere and nothing in it runs."""
    main = element("main", *_summary(report), *_sections(report), *_appendix(report))
    title = f"{report.model}: load report"
    return whole_page(title, (_header(report), main, _footer(report)), _stage_style())


def _stage_style() -> str:
    """The colours of the stages."""
    light, dark = (
        " ".join(f"--stage-{stage.name}: {stage.colours[n]};" for stage in STAGES) for n in (0, 1)
    )
    uses = [
        f".stage-{stage.name} {{ fill: var(--stage-{stage.name}); }} "
        f".key.stage-{stage.name} {{ background: var(--stage-{stage.name}); }}"
        for stage in STAGES
    ]
    schemes = f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    return "\n".join((schemes, *uses, ""))


def _header(report: Report) -> Element:
    words = run_words(report)
    if kind := _KINDS.get(report.kind):
        words = f"{kind.format(count=len(report.levels), label=report.label)}: {words}"
    return element(
        "header",
        element("p", "rootserve load", class_="program"),
        element("h1", report.model.replace(",", ", ")),
        element("p", words),
        element(
            "p", f"{instant(report.started_at)}, {report.window_s:.4g} s measured", class_="faint"
        ),
    )


def _summary(report: Report) -> list[Content]:
    """The figures one looks for first, whether they can be trusted, and what they mean."""
    failed, requests = report.failed, report.requests
    tiles = [
        (f"{report.throughput_rows_per_s:,.1f}", "rows/s answered", None),
        (duration(report.response_time_s.p50), "response time, p50", None),
        (duration(report.response_time_s.p99), "response time, p99", None),
        (
            percent(failed / requests) if requests else "-",
            f"failed, {count(failed)} of {count(requests)}",
            "bad" if failed else None,
        ),
    ]
    if report.offered_requests_per_s and report.loop == "open":
        tiles.insert(1, (f"{report.offered_requests_per_s:,.1f}", "requests/s due", None))
    if report.attained:
        tiles += [
            (column.text(report), words, None)
            for column, words in zip(
                ATTAINED[:2],
                ("attainment: answered in time, of all due", "accuracy-goodput"),
                strict=True,
            )
        ]
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
    if objective := report.objective:
        # Earlier versions told of a search alone whether it was finished.
        complete = report.find_max is None or report.find_max.complete
        sure = "ok" if objective.met else "bad"
        style = f"verdict {sure if objective.decided and complete else 'unsure'}"
        made.append(element("p", *unbroken(objective.text), class_=style))
    made += _warnings(report)
    made.append(element("p", loop_words(report.loop)))
    made.append(_times(report))
    return made


def _warnings(report: Report) -> list[Content]:
    """What casts doubt on the figures; whether the client was the bottleneck is always said."""
    unlike = unlike_limits(report)
    told = [*report.warnings, *([unlike] if unlike else [])]
    items: list[Content] = [element("li", *unbroken(each)) for each in told]
    made: list[Content] = []
    if report.client_limited:
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
    late = f"{count(report.late_departures)} requests left more than 1 ms late"
    if report.held_back:
        late += f", {count(report.held_back)} of them because as many as allowed were under way"
    cores = f"{report.client_cpu_cores:.2f} processor cores"
    pace = element("p", f"The client kept the pace: it used {cores}, and {late}.", class_="faint")
    return [box if made else None, None if report.client_limited else pace]


def _times(report: Report) -> Element:
    rows = [("response", report.response_time_s), ("service", report.service_time_s)]
    caption = (
        "Times of the answered requests: response from the instant due, service from the sending"
    )
    if report.unfinished:
        caption += "; a percentile among the unfinished ones is not known (-)"

    columns = [Column[Any]("time", itemgetter(0)), *(each.of(itemgetter(1)) for each in TIMES)]
    return table_of(caption, columns, rows)


def _sections(report: Report) -> list[Content]:
    drawn: list[Figure[Any]] = [
        *comparisons.pairs(report),
        *comparisons.search(report),
        *comparisons.over_load(report),
        *attained.over_time(report),
        *attained.variants(report),
        *figures.stages(report),
        *figures.over_time(report),
        *figures.quantiles(report),
        *figures.outcomes(report),
        *attained.reasons(report),
        *figures.batch_rows(report),
    ]
    sections: list[Content] = [figure.section() for figure in drawn]
    if not report.stages_by_percentile_s:
        sections.append(
            element("p", "The answers told no timeline: where the time went is not known.")
        )
    for parts, name in ((report.by_model, "model"), (report.by_server, "server")):
        if len(parts) > 1:
            columns: list[Column[Any]] = [replace(PART[0], name=name), *PART[1:]]
            columns += ATTAINED if report.attained else ()
            made = table_of(f"Figures by {name}", columns, parts)
            sections.append(element("section", element("h2", f"By {name}"), made))
    return sections


def _appendix(report: Report) -> list[Content]:
    """With what it was measured."""
    made: list[Content] = [element("h2", "How it was measured")]
    if report.command:
        made.append(element("pre", report.command, tabindex=0))
    if len(report.trials) > 1:
        caption = "Windows measured until the figures were stable"
        made.append(table_of(caption, TRIAL, report.trials))
    described = (("Options", report.options), ("Server", report.server), ("Client", report.client))
    made += [details_of(name, values) for name, values in described]
    return made


def _footer(report: Report) -> Element:
    version = report.client.get("version")
    return element(
        "footer",
        f"rootserve {version}, {report.schema}. Times are those of this run on this machine; "
        "compare two servers or variants by runs that take turns (rootserve compare).",
    )
