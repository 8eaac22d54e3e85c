"""Table 8's rows: ratios, JSON there and back, merging two devices, text, Markdown and picture."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from rootserve.client.catalog import PaperFigures
from rootserve.client.errors import InputError
from rootserve.client.table8.figure import draw
from rootserve.client.table8.measure import Plan
from rootserve.client.table8.rows import CATALOGUE, Row, Table, Timing, read_table
from rootserve.client.table8.text import markdown, print_table


def timing(*rounds_ms: float, device: str = "cpu") -> Timing:
    return Timing(
        rounds_ms=rounds_ms,
        rows=128,
        device=device,
        device_name="Abacus [mk 2]",
        threads=2 if device == "cpu" else 0,
        engine="openvino",
        precision="fp32",
        server_version="9.8.7",
        libraries={"openvino": "2026.4.1"},
        measured_at="2026-03-01T12:00:00+00:00",
    )


ORIG = Row(
    name="nin-orig",
    topology="orig",
    flops=222_487_946,
    params=966_986,
    accuracy=0.8376,
    accuracy_source="10,000 images through the service",
    paper=PaperFigures(0.9211, 39.0, 0.623),
    cpu=timing(2.0, 4.0, 3.0),
)
ROOT = Row(
    name="nin-root-16",
    topology="root",
    flops=93_316_490,
    params=244_682,
    accuracy=0.8251,
    accuracy_source=CATALOGUE,
    paper=PaperFigures(0.9167, 23.0, 0.475),
    cpu=timing(1.0, 2.5, 1.5),
)
UNKNOWN = Row(
    name="nin-root-32", topology="root", flops=88_302_986, params=209_546, note="not served"
)
TABLE = Table([ORIG, ROOT, UNKNOWN], "cpu")


def gpu_table() -> Table:
    rows = [
        Row(name=row.name, topology=row.topology, flops=row.flops, params=row.params,
            accuracy=0.5, accuracy_source="100 images", gpu=timing(0.02, 0.02, device="cuda:0"))
        for row in (ORIG, ROOT)
    ]  # fmt: skip
    return Table(rows, "gpu")


def test_a_speedup_is_the_median_of_the_ratios_within_the_rounds() -> None:
    # 2.0, 1.6 and 2.0; the ratio of the medians would be 3.0 / 1.5.
    speedup = TABLE.speedup(ROOT, "cpu")
    assert speedup is not None
    assert tuple(speedup) == pytest.approx((2.0, 1.6, 2.0, 1.8, 2.0))


def test_rounds_that_do_not_match_are_not_compared() -> None:
    with pytest.raises(InputError, match="1 and 3 rounds"):
        timing(1.0).speedup(timing(1.0, 2.0, 3.0))


def test_json_has_the_keys_that_scripts_read() -> None:
    orig, root, unknown = TABLE.to_json()
    assert (orig["speedup"], orig["flops_ratio"]) == (1.0, 1.0)
    assert (root["cpu_ms"], root["gpu_ms"]) == (1.5, None)
    assert root["speedup"] == pytest.approx(2.0)
    assert root["flops_ratio"] == pytest.approx(2.384, abs=0.001)
    assert root["paper"]["cpu_speedup"] == pytest.approx(1.696, abs=0.001)
    assert root["paper"]["gpu_speedup"] == pytest.approx(1.312, abs=0.001)
    assert unknown["paper"] == dict.fromkeys(root["paper"])
    assert [unknown[key] for key in ("accuracy", "cpu_ms", "gpu_ms", "speedup")] == [None] * 4
    assert unknown["note"] == "not served"


def test_json_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "table8.json"
    file.write_text(json.dumps(TABLE.to_json()))
    again = read_table(file)
    assert again.to_json() == json.loads(file.read_text())
    assert again.column == "cpu"


def test_merging_fills_the_other_devices_column() -> None:
    merged = TABLE.merged(gpu_table())
    orig, root, unknown = merged.to_json()
    assert (root["cpu_ms"], root["gpu_ms"]) == (1.5, 0.02)
    assert root["speedup"] == pytest.approx(2.0)  # of the device measured now
    assert root["gpu"]["speedup"]["median"] == pytest.approx(1.0)
    assert unknown["gpu_ms"] is None
    assert merged.columns == ["cpu", "gpu"]
    # A measured accuracy stays; one that the catalogue told gives way to a measured one.
    assert (orig["accuracy"], root["accuracy"]) == (0.8376, 0.5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE, "has cpu times, as this one"),
        (Table([Row(name="nin-x", topology="x", flops=1, params=1, gpu=timing(1.0))], "gpu"),
         r"\['nin-x'\], unknown to this server"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_not_merged(table: Table, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TABLE.merged(table)


def broken(change: str) -> Any:
    rows = TABLE.to_json()
    if change == "no rounds":
        rows[0]["cpu"]["rounds_ms"] = []
    elif change == "no key":
        del rows[0]["flops"]
    elif change == "untimed":
        for row in rows:
            row["cpu"] = None
    elif change == "both devices":
        rows = TABLE.merged(gpu_table()).to_json()
    else:
        return {"schema": "something else"}
    return rows


@pytest.mark.parametrize("change", ["no rounds", "no key", "untimed", "both devices", "other"])
def test_another_file_is_refused(tmp_path: Path, change: str) -> None:
    file = tmp_path / "table8.json"
    file.write_text(json.dumps(broken(change)))
    with pytest.raises(InputError, match=r"table8\.json: .*expected what 'rootserve table8"):
        read_table(file)


@pytest.mark.parametrize("content", [None, b"no json", b"\xff\xfe"])
def test_an_unreadable_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "table8.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"table8\.json: "):
        read_table(file)


def test_text_fits_80_columns_and_says_what_was_measured() -> None:
    out = io.StringIO()
    print_table(Console(file=out, width=80), TABLE)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith("nin-root-16"))
    assert row.split() == [
        "nin-root-16", "244,682", "82.51%", "93.3", "M", "2.38", "1.5", "2.00", "(1.60-2.00)",
        "1.70",
    ]  # fmt: skip
    assert "not served: nin-root-32" in lines
    assert "Abacus [mk 2] (cpu, 2 threads)" in out.getvalue()


def test_a_narrow_screen_goes_without_the_ranges() -> None:
    out = io.StringIO()
    print_table(Console(file=out, width=80), TABLE.merged(gpu_table()))
    assert "(1.60-2.00)" not in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_markdown_has_all_rows_and_both_devices() -> None:
    lines = markdown(TABLE.merged(gpu_table())).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:5]]
    assert {len(row) for row in cells} == {12}
    assert cells[3][0] == "`nin-root-16`"
    assert cells[3][5:8] == ["1.500 (1.000-2.500)", "2.00 (1.60-2.00)", "1.70"]
    assert any(line.startswith("- GPU: Abacus [mk 2] (cuda:0), openvino") for line in lines)


@pytest.mark.parametrize("table", [TABLE, TABLE.merged(gpu_table()), Table([UNKNOWN], "cpu")])
def test_the_picture_has_a_panel_for_each_relation(tmp_path: Path, table: Table) -> None:
    file = tmp_path / "table8.png"
    draw(table, file)
    with Image.open(file) as picture:
        panels = {0: (1, 1), 1: (4, 1), 2: (3, 2)}[len(table.columns)]
        assert picture.size == pytest.approx([150 * 4.6 * count for count in panels], abs=2)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**20) or []}
    assert ((0x16, 0x68, 0xB8) in colours) == bool(table.columns)  # the root networks' marks


def test_a_picture_of_no_known_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a name such as table8\.png"):
        draw(TABLE, tmp_path / "table8.nonsense")


@pytest.mark.parametrize(("rounds", "rows"), [(0, None), (1001, None), (1, 0)])
def test_a_plan_has_its_bounds(rounds: int, rows: int | None) -> None:
    with pytest.raises(InputError, match="expected"):
        Plan(rounds=rounds, rows=rows)


@pytest.mark.parametrize("width", [80, 120])
def test_names_are_whole_on_any_screen(width: int) -> None:
    rows = [
        replace(
            row,
            name=row.name.replace("nin", "resnet50"),
            accuracy=None,
            params=18_690_984,
            flops=2_434_581_544,
        )
        for row in TABLE.rows
    ]
    out = io.StringIO()
    print_table(Console(file=out, width=width), Table(rows, "cpu"))
    lines = out.getvalue().splitlines()
    assert lines[0].split()[:3] == ["model", "params", "FLOPs"]
    assert lines[2].startswith("resnet50-root-16 ")


def test_without_accuracies_the_picture_has_the_speedups_alone(tmp_path: Path) -> None:
    rows = [replace(row, accuracy=None) for row in TABLE.rows]
    draw(Table(rows, "cpu"), tmp_path / "speed.png")
    with Image.open(tmp_path / "speed.png") as picture:
        assert picture.size == pytest.approx([150 * 4.6 * 2, 150 * 4.6], abs=2)
