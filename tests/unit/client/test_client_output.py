"""What is printed fits 80 columns, is plain off a terminal, and reads well."""

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rootserve.client.catalog import Model
from rootserve.client.load import LatencySummary, LoadOptions, LoadResult
from rootserve.client.load.doubts import doubts
from rootserve.client.load.report import NO_TIMES
from rootserve.client.report.terminal import common_warnings, print_load
from rootserve.client.stages import STAGES
from rootserve.client.tables import (
    print_health,
    print_models,
    print_timeline,
    print_top,
    print_weights,
)
from rootserve.client.units import count, duration, millions, percent


def screen(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=80, force_terminal=terminal, highlight=False)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    if not console.is_terminal:
        assert max(map(len, text.splitlines()), default=0) <= 80
    return text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.0, "0.00 µs"), (1e-6, "1.00 µs"), (0.00085, "850 µs"),
        (0.0009996, "1.00 ms"), (0.0123456, "12.3 ms"), (0.09996, "100 ms"), (0.9996, "1.00 s"),
        (1.5, "1.50 s"), (1234.5, "1,234 s"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(1e-6, 9999))
def test_durations_keep_three_digits(seconds: float) -> None:
    number, unit = duration(seconds).split()
    value = float(number.replace(",", "")) * {"µs": 1e-6, "ms": 1e-3, "s": 1.0}[unit]
    assert value == pytest.approx(seconds, rel=6e-3)
    assert len(number.replace(".", "").replace(",", "")) in {3, 4}


def test_counts_and_shares() -> None:
    assert count(966_986) == "966,986"
    assert millions(222_496_000) == "222.5 M"
    assert percent(0.91254) == "91.25%"
    assert percent(None) == "-"


def model(**changes: object) -> Model:
    settings: dict[str, object] = {
        "name": "resnet50-root-64", "family": "resnet50", "topology": "root",
        "params": 25_557_032, "macs": 4_089_184_256, "flops_paper": 4_100_000_000,
        "accuracy": 0.7571, "trained": True, "engine": "openvino", "precision": "bf16",
        "state": "unloaded", "state_reason": None, "image_size": 224, "classes": (), "paper": None,
        "batch_rows": 32,
    }  # fmt: skip
    return Model(**settings | changes)


def test_the_widest_model_fits() -> None:
    console = screen()
    print_models(console, [model(), model(name="[b]nin[/b]", accuracy=None, engine=None)])
    text = printed(console)
    assert "\x1b" not in text
    assert "resnet50-root-64  unloaded  openvino bf16     32  25,557,032" in text
    assert "25,557,032" in text
    assert "4,089.2 M" in text
    assert "[b]nin[/b]" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_a_long_name_is_never_cut(terminal: bool) -> None:
    name = "my-net-suggest-" + "0123456789" * 3
    console = screen(terminal=terminal)
    print_models(console, [model(name=name)])
    text = printed(console)
    assert "…" not in text
    parts = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert name in "".join(parts)


def test_a_family_has_no_weights_of_its_own() -> None:
    members = ("nin-orig", "nin-root-4")
    console = screen()
    print_weights(console, [model(name="nin-auto", members=members), model(generation=2)])
    _, family, single = printed(console).splitlines()
    assert family.split() == ["nin-auto", "unloaded", "-", "-", "-", "75.71%"]
    assert single.split() == ["resnet50-root-64", "unloaded", "-", "untrained", "2", "75.71%"]


def test_a_terminal_gets_colours() -> None:
    console = screen(terminal=True)
    print_models(console, [model(state="ready")])
    assert "\x1b[32mready" in printed(console)


def test_health_shows_reasons_and_counts_the_rest() -> None:
    console = screen()
    reason = "the weights are those of another network: " * 3
    print_health(console, "SERVING", [model(state="failed", state_reason=reason), model(), model()])
    text = printed(console)
    assert "those of another network" in " ".join(text.split())
    assert "2 more known and not loaded" in text


def test_bars_are_for_terminals() -> None:
    ranking = [("cat", 0.5), ("aeroplane", 0.25)]
    plain, colourful = screen(), screen(terminal=True)
    print_top(plain, "[cat].png", ranking)
    assert printed(plain) == "[cat].png\n  cat         50.00%\n  aeroplane   25.00%\n"
    print_top(colourful, "cat.png", ranking)
    assert "█" * 12 in printed(colourful)


ASKED = LoadOptions(model="resnet50-root-64", rate=1500.0, rows=16)
TOLD = {stage.name: 0.001 * (n + 1) for n, stage in enumerate(STAGES)} | {"decode": 0.0}


def result(**changes: object) -> LoadResult:
    times = LatencySummary(0.0012, 0.0123, 0.123, 1.23, 0.0011, 0.02, 12.3)
    settings: dict[str, object] = {
        "label": ASKED.label, "model": ASKED.model, "loop": ASKED.loop, "rate": ASKED.rate,
        "options": ASKED.to_json(), "started_at": "2026-01-01T00:00:00.000+00:00",
        "window_s": 10.0, "requests": 123_456, "succeeded": 123_400,
        "errors": {"RESOURCE_EXHAUSTED": 50}, "unfinished": 6,
        "outcomes": {"OK": 123_400, "RESOURCE_EXHAUSTED": 50, "UNFINISHED": 6},
        "offered_requests_per_s": 12_345.6,
        "throughput_rows_per_s": 197_440.0, "throughput_requests_per_s": 12_340.0,
        "response_time_s": times, "p99_of_all_s": 0.123, "service_time_s": times,
        "late_departures": 10, "max_lateness_s": 0.5, "client_cpu_cores": 0.5,
        "stages_s": TOLD, "stages_by_percentile_s": {"p99": TOLD | {"client_wait": 1.5}, "mean": TOLD},
        "mean_batch_rows": 31.5, "batch_rows": {31: 10, 32: 10},
    }  # fmt: skip
    return LoadResult(**settings | changes)


def test_load_table() -> None:
    console = screen()
    print_load(console, result())
    text = printed(console)
    assert "open loop, 1500 requests/s (poisson), 16 rows per request" in " ".join(text.split())
    assert "197,440.0" in text
    assert "RESOURCE_EXHAUSTED" in text
    (response,) = [line for line in text.splitlines() if line.startswith("response")]
    assert response.split()[1:] == [
        "1.20", "ms", "12.3", "ms", "123", "ms", "1.23", "s", "20.0", "ms", "12.3", "s",
    ]  # fmt: skip
    assert "warning" not in text
    (mean,) = [line for line in text.splitlines() if line.startswith("mean")]
    assert mean.split()[1:] == [
        "1.00", "ms", "2.00", "ms", "3.00", "ms", "4.00", "ms", "5.00", "ms", "7.00", "ms", "31.5",
    ]  # fmt: skip
    assert "at p99   1.50 s" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_decoding_is_told_where_there_was_any(terminal: bool) -> None:
    with_files, without = screen(terminal=terminal), screen(terminal=terminal)
    told = TOLD | {"decode": 0.0025}
    print_load(with_files, result(stages_by_percentile_s={"mean": told, "p99": told}))
    text = printed(with_files)
    assert "compute, of which decode: mean 2.50 ms, at p99 2.50 ms" in text
    # No column was squeezed, the rows' names least of all.
    (row,) = [line for line in text.splitlines() if "at p99" in line and "decode" not in line]
    assert row.count("ms") == len(STAGES) - 1
    print_load(without, result())
    assert "decode" not in printed(without)


def test_a_timeline_breaks_between_its_stages() -> None:
    console = screen()
    told = {f"{stage.name}_s": 0.00678 for stage in STAGES} | {"total_s": 0.03, "weights": ""}
    told |= {"batch_rows": 1, "worker": "cpu-0", "engine": "openvino", "precision": "int8"}
    print_timeline(console, SimpleNamespace(**told), 0.04)  # type: ignore[arg-type]
    lines = printed(console).splitlines()
    assert len(lines) == 5
    assert all(line.endswith(" ms,") for line in lines[1:3])
    assert " ".join(lines[1:4]).count(" ms") == len(STAGES)


def test_load_table_without_an_answer() -> None:
    console = screen()
    print_load(
        console,
        result(
            response_time_s=NO_TIMES,
            service_time_s=NO_TIMES,
            stages_s=None,
            stages_by_percentile_s=None,
        ),
    )
    assert "response" in printed(console)


def test_warnings_say_what_casts_doubt() -> None:
    assert doubts(result()) == []
    late, busy = doubts(result(late_departures=5000, client_cpu_cores=1.2))
    assert "5,000 requests left more than 1 ms late (at most 500 ms)" in late
    assert "1.2 processor cores" in busy
    (stopped,) = doubts(result(interrupted=True, window_s=2.5))
    assert stopped == "interrupted: 2.5 s of 10 s were measured"


IMPORTS = """
import sys
import {module}
heavy = {{
    "torch", "pyarrow", "PIL", "hdrh", "matplotlib", "numpy", "grpc", "rich", "server", "rootmodels",
}}
print(sorted((heavy - set({allowed!r}.split())) & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("rootserve.client.cli", ""),
        ("rootserve.client.inference", "numpy grpc"),
        ("rootserve.client.load", "numpy grpc hdrh"),
        ("rootserve.client.commands.load", "numpy grpc hdrh rich"),
        ("rootserve.client.commands.infer", "numpy grpc hdrh rich"),
        ("rootserve.client.analysis.service", "numpy grpc"),
        ("rootserve.client.commands.analyze", "numpy grpc hdrh rich"),
    ],
)
def test_importing_is_light(module: str, allowed: str) -> None:
    """So that --help is quick, and that no client needs torch."""
    program = IMPORTS.format(module=module, allowed=allowed)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_what_casts_doubt_on_several_runs_alike_is_told_once() -> None:
    late = "the client was the bottleneck: {} requests left more than 1 ms late (at most {})"
    runs = [
        result(label=label, warnings=warnings)
        for label, warnings in (
            ("100/s", [late.format("7", "1.5 ms")]),
            ("200/s", []),
            ("300/s", [late.format("1,204", "930 µs"), "something else"]),
        )
    ]
    assert common_warnings(runs) == [
        f"2 of 3 runs, the last 300/s: {late.format('1,204', '930 µs')}",
        "300/s: something else",
    ]
