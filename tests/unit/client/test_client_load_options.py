"""What people write as options of a load run, by table."""

from pathlib import Path

import pytest

from rootserve.client.errors import InputError
from rootserve.client.load import LoadOptions, Mix, Ramp, Steps, read_trace
from rootserve.client.load.arrivals import parse_arrivals
from rootserve.client.load.series import parse_series
from rootserve.client.load.specify import (
    deadlines_of,
    integers_of,
    loads_of,
    models_of,
    other_side,
    times_of,
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("8", (8,)),
        ("1,2,4", (1, 2, 4)),
        ("1:4", (1, 2, 3, 4)),
        ("1:10:3", (1, 4, 7, 10)),
        ("1:64:x2", (1, 2, 4, 8, 16, 32, 64)),
        ("100:500:x2", (100, 200, 400)),
        ("0.1:0.3:0.1", (0.1, 0.2, 0.3)),
        ("1:3,10", (1, 2, 3, 10)),
        (" 5 , 6 ", (5, 6)),
        ("2:2", (2,)),
    ],
)
def test_series(text: str, values: tuple[float, ...]) -> None:
    assert parse_series("--rate", text) == pytest.approx(values)


@pytest.mark.parametrize(
    "text",
    ["", "a", "1,,2", "4:1", "1:8:0", "1:8:-1", "1:8:x1", "0:8:x2", "1:2:3:4", "nan", "1:1e9"],
)
def test_series_refuses(text: str) -> None:
    with pytest.raises(InputError, match=r"--rate .*expected"):
        parse_series("--rate", text)


@pytest.mark.parametrize(
    ("text", "arrivals"),
    [
        ("50..500", Ramp(50, 500)),
        ("500..0", Ramp(500, 0)),
        ("50x10,400x5.5", Steps(((50, 10), (400, 5.5)))),
        ("50", None),
        ("50,100", None),
        ("50:400:x2", None),
    ],
)
def test_arrivals(text: str, arrivals: object) -> None:
    assert parse_arrivals(text) == arrivals
    if arrivals is not None:
        assert str(arrivals) == text


@pytest.mark.parametrize(
    "text",
    ["50..", "..", "a..b", "50x", "x5", "50x10,60", "0x5", "50x0", "-1..5", "0..0", "1..1e9"],
)
def test_arrivals_refuse(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        parse_arrivals(text)


def test_mixes() -> None:
    assert integers_of("--rows", "4") == 4
    assert integers_of("--rows", "1,8") == Mix((1, 8), (1.0, 1.0))
    assert integers_of("--rows", "1=70,8=30") == Mix((1, 8), (70.0, 30.0))
    assert integers_of("--rows", "1:3") == Mix((1, 2, 3), (1.0, 1.0, 1.0))
    assert models_of(["a=3", "b"]) == Mix(("a", "b"), (3.0, 1.0))
    assert models_of(["a,b"]) == Mix(("a", "b"), (1.0, 1.0))
    assert models_of(["a"]) == "a"
    assert deadlines_of("50") == 0.05
    assert deadlines_of("50,200") == Mix((0.05, 0.2), (1.0, 1.0))
    assert str(Mix((1, 8), (0.5, 2.0))) == "1=0.5,8=2"


@pytest.mark.parametrize("text", ["1.5", "1=0", "1=-1", "1=x", "1,1", "1=nan", "=2"])
def test_mixes_refuse(text: str) -> None:
    with pytest.raises(InputError, match=r"--rows .*expected"):
        integers_of("--rows", text)


def test_a_trace_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("at_s,model,rows,deadline_ms\n0,,,\n0.25,nin-orig,8,50\n0.25,,2,\n")
    ((callers, trace),) = loads_of(None, None, path)
    assert callers is None
    assert [entry.at_s for entry in trace.entries] == [0, 0.25, 0.25]
    assert (trace.entries[1].model, trace.entries[1].rows) == ("nin-orig", 8)
    assert trace.entries[1].deadline_s == 0.05
    assert trace.entries[2].model is None
    options = LoadOptions(model="a", rate=trace)
    assert options.models == ("a", "nin-orig")
    # The window holds the last departure.
    duration_s, warmup_s = times_of(trace, None, None)
    assert 0.25 < duration_s < 0.26
    assert warmup_s == 0
    # It tells every departure: no spread was drawn.
    assert options.to_json()["distribution"] is None


def test_a_trace_file_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("at_s,rows\n0.5,2\n", encoding="utf-8-sig")
    assert [entry.rows for entry in read_trace(path).entries] == [2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "first line is ''"),
        ("0.1\n0.2\n", "first line is '0.1'"),
        ("at_s,colour\n1,red\n", "colour"),
        ("at_s\n", "no departures"),
        ("at_s\nsoon\n", "line 2"),
        ("at_s\n1\n-1\n", "line 3"),
        ("at_s\n2\n1\n", "line 3: at_s 1 comes after 2"),
        ("at_s,rows\n1,0\n", "line 2"),
        ("at_s\n1,2\n", "line 2"),
        ("at_s,rows\n1,nan\n", "line 2"),
        ("at_s,rows\n1,1.5\n", "line 2: .*whole ones for rows and priority"),
        ("at_s,priority\n1,1.5\n", "line 2: .*whole ones for rows and priority"),
    ],
)
def test_a_trace_file_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_trace(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path / "missing.csv")


def test_times_fit_the_arrivals() -> None:
    assert times_of(Steps(((10, 3), (20, 4))), None, None) == (7, 2)
    assert times_of(Steps(((10, 3), (20, 4))), 5, 1) == (5, 1)
    assert times_of(100.0, None, None) == (10, 2)
    assert times_of(None, 3, 0) == (3, 0)


def test_the_other_side() -> None:
    options = LoadOptions(model="a", concurrency=1, server="h:1")
    assert other_side(options, "b").model == "b"
    assert other_side(options, "@h:2").server == "h:2"
    both = other_side(options, "b@h:2")
    assert (both.model, both.server) == ("b", "h:2")
    with pytest.raises(InputError, match="is what it is to be compared with"):
        other_side(options, "a")
    with pytest.raises(InputError, match="HOST:PORT"):
        other_side(options, "b@nowhere")
