"""The live view: what it draws on a terminal, and the plain lines elsewhere."""

import io
from dataclasses import replace

from rich.console import Console

from rootserve.client.load.snapshot import Snapshot
from rootserve.client.report.live import LiveView

WARM_UP = Snapshot(
    elapsed_s=1.0, warming_up=True, requests=0, failed=0, rows_per_s=90.0, p99_s=None,
    answered_rows=90, in_flight=3,
)  # fmt: skip
MEASURED = Snapshot(
    elapsed_s=10.0, warming_up=False, requests=1000, failed=7, rows_per_s=124.0, p99_s=0.05,
    p50_s=0.004, errors={"UNAVAILABLE": 5, "[red]": 2}, in_flight=4, late=11, answered_rows=1000,
    recent_p50_s=0.003, recent_p99_s=0.02,
)  # fmt: skip


def drawn(*snapshots: Snapshot, width: int = 80) -> str:
    """What is on the terminal after the last one."""
    out = io.StringIO()
    screen = Console(
        file=out,
        force_terminal=True,
        width=width,
        height=25,
        color_system=None,
        legacy_windows=False,
    )
    with LiveView(screen, 22.0, "nin-orig, 100/s") as live:
        for snapshot in snapshots:
            out.truncate(0)
            out.seek(0)
            live.show(snapshot)
        return out.getvalue()


def test_a_terminal_shows_the_rate_the_times_and_the_outcomes() -> None:
    earlier = replace(MEASURED, elapsed_s=9.0, answered_rows=850)
    text = drawn(earlier, MEASURED)
    lines = [line.split() for line in text.splitlines()]
    assert ["just", "now", "150", "3.00", "ms", "20.0", "ms", "4"] in lines
    assert ["so", "far", "124", "4.00", "ms", "50.0", "ms", "11"] in lines
    assert ["OK", "993", "UNAVAILABLE", "5", "[red]", "2"] in lines
    assert any("10 of 22 s, 12 s left" in line for line in text.splitlines())


def test_the_warm_up_is_told_apart() -> None:
    text = drawn(WARM_UP)
    assert "warming up" in text
    assert "90" in text


def test_a_narrow_terminal_is_not_broken() -> None:
    assert max(map(len, drawn(MEASURED, width=60).splitlines())) <= 120


def test_elsewhere_there_is_a_plain_line_after_five_seconds_and_then_every_ten() -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, width=80), 30.0, "nin-orig, [100/s]") as live:
        for half in range(50):
            live.show(replace(MEASURED, elapsed_s=half / 2))
    with LiveView(Console(file=out, width=80), 30.0, "nin-root-4, 100/s") as live:
        live.show(replace(WARM_UP, elapsed_s=10.5))
    assert out.getvalue().splitlines() == [
        "nin-orig, [100/s]: 5 of 30 s, 124 rows/s, p50 4.00 ms, p99 50.0 ms, 7 of 1,000 failed",
        "nin-orig, [100/s]: 15 of 30 s, 124 rows/s, p50 4.00 ms, p99 50.0 ms, 7 of 1,000 failed",
        "nin-root-4, 100/s: 10 of 30 s, 90 rows/s, warming up",
    ]
