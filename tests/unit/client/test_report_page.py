"""The page and the CSV of a load report: what they say, and that all text in them is escaped."""

import copy
import csv
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rootserve.client.errors import InputError
from rootserve.client.load import report as load_report
from rootserve.client.load.report import read_report
from rootserve.client.report import comparisons, write_csv, write_html
from rootserve.client.report import render as page_of
from rootserve.client.report import to_csv as csv_of
from rootserve.client.report.comparisons import over_load
from rootserve.client.stages import STAGES
from rootserve.client.units import duration

# As it is in a file.
Report = dict[str, Any]
DATA = Path(__file__).parents[2] / "data"
VOID = {"meta"}


@pytest.fixture
def single() -> Report:
    return json.loads((DATA / "load-open.json").read_text())


@pytest.fixture
def sweep() -> Report:
    return json.loads((DATA / "load-sweep.json").read_text())


def render(report: Report) -> str:
    return page_of(load_report.Report.from_json(report))


def to_csv(report: Report) -> str:
    return csv_of(load_report.Report.from_json(report))


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)
            if self._open[-1] == "h2":
                self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def find_max(report: Report) -> Report:
    steps = [
        {"rate": 100.0, "held": True, "p99_s": 0.01, "level": 0},
        {"rate": 200.0, "held": False, "p99_s": None, "level": 1},
    ]
    words = "100 requests/s held, 200 did not"
    found = {"objective_p99_s": 0.05, "rate": 100.0, "text": words, "steps": steps}
    return report | {"kind": "find_max", "find_max": found, "levels": report["levels"][:2]}


def pairs(report: Report) -> Report:
    ratio = {"ratio": 1.42, "low": 1.36, "high": 1.49}
    alone = {"ratio": 0.9, "low": None, "high": None}
    ratios = {"throughput_rows_per_s": ratio, "p50_s": alone, "p99_s": alone}
    found = {"a": "nin-orig", "b": "nin-root-4", "rounds": 1, "ratios": ratios}
    return report | {"kind": "pairs", "pairs": found}


def test_the_page_of_one_run(single: Report) -> None:
    page = Page(render(single))
    assert page.headings == [
        "Where the time goes", "The same as shares", "Latency over time", "Rate over time",
        "Failures over time", "Distribution of the response time", "Outcomes", "Batch sizes",
        "How it was measured",
    ]  # fmt: skip
    assert "open loop, 300 requests/s (poisson), 1 row per request" in page.text
    assert "291.4 rows/s" in page.text or "rows/s answered 291.4" in page.text
    assert "Open loop: requests were due at their own instants" in page.text
    assert "UNAVAILABLE" in page.text
    assert "openvino" in page.text  # the server, last


def test_the_page_of_a_sweep(sweep: Report) -> None:
    page = Page(render(sweep))
    assert page.headings[:2] == ["Response time over the load", "Answers over the load"]
    assert "By model" in page.headings
    assert "Closed loop: a fixed number of callers" in page.text
    for level in sweep["levels"]:
        assert level["label"] in page.text


@pytest.mark.parametrize("rates", [False, True])
def test_lines_over_the_load_never_fold_back(sweep: Report, rates: bool) -> None:
    """Whatever noise does to the throughput, and whatever the order of the runs."""
    levels = [
        {
            **sweep["levels"][0],
            "label": f"{offered}",
            "concurrency": None if rates else offered,
            "rate": float(offered) if rates else None,
            "throughput_requests_per_s": answered,
        }
        for offered, answered in ((64, 350.0), (1, 90.0), (16, 410.0), (32, 190.0))
    ]
    figures = over_load(load_report.Report.from_json({**sweep, "levels": levels}))
    assert [figure.title for figure in figures] == [
        "Response time over the load", "Answers over the load",
    ]  # fmt: skip
    for figure, lines in zip(figures, (2, 1 + rates), strict=True):
        drawing = figure.draw("", 720)
        paths = [mark.get("d") for mark in drawing.iter("path")]
        assert len(paths) == lines
        for path in paths:
            assert path is not None
            across = [float(point.split()[0]) for point in path[1:].split("L")]
            assert len(across) == 4
            assert across == sorted(across)
    assert ("line due", "as much as was offered") in figures[1].legend or not rates


def test_the_page_of_a_search(sweep: Report) -> None:
    page = Page(render(find_max(sweep)))
    assert page.headings[0] == "The search for the highest rate"
    assert page.words.count("100 requests/s held, 200 did not") == 1
    assert {"held", "missed"} <= set(page.words)


def test_the_page_of_pairs(sweep: Report) -> None:
    page = Page(render(pairs(sweep)))
    assert page.headings[0] == "nin-root-4 against nin-orig"
    assert "throughput 1.420 1.360 1.490" in page.text
    assert "p50 of the response time 0.900 - -" in page.text


def test_the_ratios_of_pairs_are_drawn_over_round_values(sweep: Report) -> None:
    (figure,) = comparisons.pairs(load_report.Report.from_json(pairs(sweep)))
    texts = [each.text for each in figure.draw("ratios", 700.0).iter() if each.text]
    assert {"1", "1.2", "1.4"} <= set(texts)


def test_every_drawing_has_a_text_alternative_and_a_wide_and_a_narrow_form(single: Report) -> None:
    page = Page(render(single))
    drawings = page.tags.count("svg")
    assert drawings == 2 * page.tags.count("section")
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(labels) == drawings
    assert all(label and len(label) > 20 for label in labels)


def test_nothing_is_loaded_and_nothing_runs(single: Report) -> None:
    text = render(single)
    page = Page(text)
    assert "script" not in page.tags
    assert not {"src", "href"} & {name for _, name, _ in page.attributes}
    assert "url(" not in text
    assert "@import" not in text
    policy = next(v for tag, name, v in page.attributes if (tag, name) == ("meta", "content"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


HOSTILE = "</style><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


def poisoned(value: Any) -> Any:
    """The same report with hostile words in place of all others, keys of errors included."""
    if isinstance(value, dict):
        return {key: poisoned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


def test_all_text_is_escaped(sweep: Report, single: Report) -> None:
    for report in (sweep, single, pairs(sweep)):
        known = {name: report[name] for name in ("schema", "kind", "loop")}
        hostile = poisoned(report) | known
        hostile["warnings"] = [HOSTILE]
        hostile["errors"] = hostile["outcomes"] = {HOSTILE: 3, "OK": 1}
        hostile["time_series"] = [
            each | {"phase": "measured", "errors": {HOSTILE: 1}, "failed": 1}
            for each in report["time_series"]
        ]
        page = Page(render(hostile))
        assert not {"script", "img"} & set(page.tags)
        assert HOSTILE in page.words


@pytest.mark.parametrize("limited", [True, False])
def test_the_page_says_whether_the_client_was_the_bottleneck(single: Report, limited: bool) -> None:
    # Whatever else there is to say.
    report = single | {"client_limited": limited, "warnings": ["interrupted: 3 s of 10 s"]}
    text = Page(render(report)).text
    assert ("The client was the bottleneck." in text) == limited
    assert ("The client kept the pace" in text) == (not limited)


def test_warnings_and_the_objective_come_before_the_figures(single: Report) -> None:
    objective = {"p99_s": 0.05, "met": False, "text": "objective missed: by far"}
    report = single | {"warnings": ["interrupted: 3 s of 10 s"], "objective": objective}
    text = Page(render(report)).text
    first = text.index("Where the time goes")
    assert text.index("objective missed: by far") < first
    assert text.index("interrupted: 3 s of 10 s") < first


def nothing_answered(report: Report) -> None:
    nothing = dict.fromkeys(report["response_time_s"])
    report |= {
        "succeeded": 0, "errors": {"UNAVAILABLE": 5}, "outcomes": {"UNAVAILABLE": 5},
        "requests": 5, "response_time_s": nothing, "service_time_s": nothing,
        "response_quantiles_s": [], "stages_s": None, "stages_by_percentile_s": None,
        "stage_times_s": None, "batch_rows": {}, "mean_batch_rows": None,
    }  # fmt: skip
    for second in report["time_series"]:
        second |= {"answered": 0, "p50_s": None, "p99_s": None, "max_s": None}


def nothing_sent(report: Report) -> None:
    nothing_answered(report)
    report |= {"requests": 0, "errors": {}, "outcomes": {}, "time_series": [], "window_s": 0.0}


def only_what_is_needed(report: Report) -> None:
    for key in ("time_series", "batch_rows", "stages_by_percentile_s", "stage_times_s",
                "response_quantiles_s", "by_model", "by_server", "trials", "server", "client",
                "command", "warnings", "client_limited", "objective", "find_max", "pairs"):  # fmt: skip
        del report[key]


@pytest.mark.parametrize("change", [nothing_answered, nothing_sent, only_what_is_needed])
def test_what_is_not_known_is_left_out(single: Report, change: Callable[[Report], None]) -> None:
    report = copy.deepcopy(single)
    change(report)
    page = Page(render(report))
    assert "Where the time goes" not in page.headings
    assert "The answers told no timeline" in page.text
    assert page.headings[-1] == "How it was measured"
    assert to_csv(report).count("\n") == 2


def test_a_long_run_is_pooled(single: Report) -> None:
    second = single["time_series"][5]
    series = [second | {"second": n, "phase": "measured"} for n in range(86_400)]
    series[50_000] = series[50_000] | {"p99_s": 7.0, "max_s": 9.0}
    text = render(single | {"time_series": series})
    assert len(text) < 1_000_000
    assert "Each point stands for up to 360 s" in text
    assert "9.00 s" in text  # the worst second is still there


def test_csv_has_a_row_for_each_run(sweep: Report, single: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(sweep))))
    assert [row["label"] for row in rows] == [level["label"] for level in sweep["levels"]]
    (row,) = csv.DictReader(io.StringIO(to_csv(single)))
    assert float(row["response_time_p99_s"]) == single["response_time_s"]["p99"]
    assert (row["errors_UNAVAILABLE"], row["concurrency"], row["rate"]) == ("146", "", "300")
    assert float(row["mean_queue_s"]) == single["stages_s"]["queue"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", "is no load report"),
        ('{"schema": "rootserve.load/9"}', "has the schema 'rootserve.load/9'"),
        ('{"schema": "rootserve.load/1"}', "is not whole: Object missing required field"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "report.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=words):
        read_report(file)


def test_a_file_that_cannot_be_written_is_named(single: Report) -> None:
    report = load_report.Report.from_json(single)
    for write in (write_html, write_csv):
        with pytest.raises(InputError, match="/nowhere/report: cannot be written"):
            write(report, Path("/nowhere/report"))


def test_the_examples_lose_nothing_by_being_read() -> None:
    def check(told: Any, read: Any) -> None:
        if isinstance(told, dict):
            for key, value in told.items():
                check(value, read[key])
        elif isinstance(told, list):
            assert len(told) == len(read)
            for one, other in zip(told, read, strict=True):
                check(one, other)
        else:
            assert told == read

    for file in DATA.glob("load-*.json"):
        check(json.loads(file.read_text()), read_report(file).to_json())


def test_the_page_of_a_replay_says_so(single: Report) -> None:
    single["rate"] = "trace.csv"
    single["options"]["rate"] = "trace.csv"
    text = Page(render(single)).text
    assert "open loop, replay of trace.csv, 1 row per request" in text
    assert "poisson)" not in text
    single["rate"] = "50..500"
    assert "50..500 requests/s (poisson)" in Page(render(single)).text


def test_an_unfinished_search_is_not_framed_in_green(sweep: Report) -> None:
    report = find_max(sweep)
    report["objective"] = {"p99_s": 0.05, "met": True, "text": "not finished", "decided": False}
    assert ("p", "class", "verdict unsure") in Page(render(report)).attributes
    report["objective"]["decided"] = True
    assert ("p", "class", "verdict ok") in Page(render(report)).attributes
    # As earlier versions wrote it.
    del report["objective"]["decided"]
    report["find_max"]["complete"] = False
    assert ("p", "class", "verdict unsure") in Page(render(report)).attributes


def test_decoding_is_shown_where_there_was_any(single: Report) -> None:
    assert ("span", "class", "key stage-decode") not in Page(render(single)).attributes
    for stages in single["stages_by_percentile_s"].values():
        stages["decode"] = stages["compute"] / 4
    text = render(single)
    page = Page(text)
    # A column of the numbers, a key of the legend, a part of each bar; which is as long as before.
    assert ("span", "class", "key stage-decode") in page.attributes
    bars = [value for tag, name, value in page.attributes if (tag, name) == ("rect", "class")]
    assert (
        bars.count("fill stage-decode")
        == bars.count("fill stage-compute") - len(single["batch_rows"]) * 2
    )
    median = single["stages_by_percentile_s"]["p50"]
    total_s = sum(median.values()) - median["decode"]
    assert f"p50 {duration(total_s)}" in text
    assert "compute has decode in it; the bars tell them apart" in page.text


def test_each_stage_has_its_colour_in_both_schemes(single: Report) -> None:
    text = render(single)
    light, _, dark = text.partition("prefers-color-scheme: dark) { :root { --stage")
    for stage in STAGES:
        assert f"--stage-{stage.name}: {stage.colours[0]};" in light
        assert f"-{stage.name}: {stage.colours[1]};" in dark
        assert f".key.stage-{stage.name} {{" in text


def test_no_line_ends_within_an_option(single: Report) -> None:
    text = render({**single, "warnings": ["it was busy: try --processes, or -x"]})
    assert '<li>it was busy: try <span class="option">--processes</span>, or -x</li>' in text
