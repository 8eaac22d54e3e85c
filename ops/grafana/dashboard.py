"""The Grafana dashboard as code: ``python ops/grafana/dashboard.py`` writes its JSON and docs/dashboard.md.

With ``--check`` it writes nothing, and fails when what is committed is not what it would write.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fleet_rows import analysis, gpus, variants, workers
from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import TimeZoneBrowser
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from panels import DATASOURCE
from proxy_rows import proxy
from service_rows import batching, callers, deadlines, time

from scripts.generated import write_or_check

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "ops" / "grafana" / "dashboards" / "rootserve.json"
PAGE = ROOT / "docs" / "dashboard.md"

HEAD = """\
# Dashboard

<!-- Written by ops/grafana/dashboard.py: change that, not this. -->

What the Grafana dashboard shows, from top to bottom ([monitoring.md](monitoring.md)).
"""


def build() -> dict[Path, str]:
    """The dashboard as JSON, and the page that lists its panels."""
    board = Dashboard("Rootserve").uid("rootserve").tags(["rootserve", "inference"])
    board.description(
        "Whether callers are served well, where the time goes, and what each variant costs."
    )
    board.time("now-15m", "now").refresh("5s").timezone(TimeZoneBrowser)
    board.tooltip(DashboardCursorSync.CROSSHAIR).readonly()
    for name, metric in {
        "instance": "rootserve_serving",
        "model": "rootserve_model_ready",
        "worker": "rootserve_worker_up",
    }.items():
        board.with_variable(
            QueryVariable(name)
            .label(name.capitalize())
            .query(f"label_values({metric}, {name})")
            .datasource(DATASOURCE)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(selected=True, text="All", value="$__all"))
        )
    rows = (callers, deadlines, time, batching, workers, variants, analysis, gpus, proxy)
    for row in rows:
        row(board)
    built = board.build()
    panels = [each for top in built.panels or [] for each in (top, *_folded(top))]
    for number, panel in enumerate(panels, start=1):
        panel.id_val = number
    parts = [HEAD]
    for panel in panels:
        if panel.type_val == "row":
            parts.append(f"\n## {panel.title}\n\n| panel | what it tells |\n|---|---|\n")
        else:
            parts.append(f"| {panel.title} | {panel.description} |\n")
    encoded = JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"
    return {TARGET: encoded, PAGE: "".join(parts)}


def _folded(panel: Any) -> list[Any]:
    """What a row that is folded has in it."""
    return list(getattr(panel, "panels", None) or [])


def main() -> int:
    """Write both, or check them."""
    return write_or_check(build(), "python ops/grafana/dashboard.py", __doc__)


if __name__ == "__main__":
    sys.exit(main())
